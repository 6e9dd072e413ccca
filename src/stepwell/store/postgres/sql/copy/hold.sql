-- The first statement of its transaction: what it sees is of a moment after every commit that it waited out.
lock table lane in share mode nowait

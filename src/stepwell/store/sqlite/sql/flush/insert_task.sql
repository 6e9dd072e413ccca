insert into task (no, {task}) values (?1 << 20 | ?2, {task?})

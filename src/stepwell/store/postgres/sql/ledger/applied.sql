select no, hash from migration

select no, name, hash from migration

select no, hash from app_migration where app = $1

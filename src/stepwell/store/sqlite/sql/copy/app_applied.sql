select app, no from app_migration order by app, no

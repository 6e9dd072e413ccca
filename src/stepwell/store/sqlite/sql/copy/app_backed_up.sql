select app, no from stepwell_app_migration order by app, no

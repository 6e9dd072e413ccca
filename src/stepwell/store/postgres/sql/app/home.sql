-- The kernel's schema; the role of the app: one of the name of its schema, if there is one that this user may take; and
-- the constraints that wait for the commit.
select current_schema(), (
    select rolname::text from pg_roles
    where rolname = current_schema() || '_app'
    and pg_has_role(oid, case when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end)
), (
    select array(
        select distinct format('%I.%I', nspname, conname) from pg_constraint
        join pg_namespace on pg_namespace.oid = connamespace where condeferred
    )
)

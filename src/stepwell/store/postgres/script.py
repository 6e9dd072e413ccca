"""The migrations as one script for a DBA, where the user of the servers may not change the schema. Pure."""

from collections.abc import Sequence

from stepwell.store.port import AppMigration
from stepwell.store.postgres.home import Home, quoted
from stepwell.store.postgres.ledger import digest
from stepwell.store.postgres.sql import migrations, sql

_HEAD = """\
-- The schema of Stepwell, for {schema}: what is there already is left as it is, so it may be run again.
-- psql -v ON_ERROR_STOP=1 -f THIS postgresql://...
begin;
create schema if not exists {schema};
set local search_path = {schema};
{ledger};
{lock};
"""
_ONE = """\
do $migrate$
begin
    if exists (select from migration where no = {no} and hash <> '{hash}') then
        raise exception 'migration {no} is another one here: the schema is not of this version of Stepwell';
    end if;
    if not exists (select from migration where no = {no}) then
        execute $stepwell$
{script}
$stepwell$;
        insert into migration (no, name, hash, at) values ({no}, '{name}', '{hash}', now());
    end if;
end
$migrate$;
"""
_APP = """\
do $migrate$
begin
    if exists (select from app_migration where app = '{app}' and no = {no} and hash <> '{hash}') then
        raise exception 'migration {no} of {app} changed after it was applied';
    end if;
    if not exists (select from app_migration where app = '{app}' and no = {no}) then
        set local search_path = {home};
        execute $stepwell$
{script}
$stepwell$;
        set local search_path = {schema};
        insert into app_migration (app, no, name, hash, at) values ('{app}', {no}, '{name}', '{hash}', now());
    end if;
end
$migrate$;
"""
_TAIL = """\
commit;

-- A user that runs servers and may not change the schema needs this much:
-- grant usage on schema {schema} to USER;
-- grant select, insert, update, delete on all tables in schema {schema} to USER;
-- grant usage, select, update on all sequences in schema {schema} to USER;
"""


def script_of(schema: str, app: str, given: Sequence[AppMigration]) -> str:
    """Everything that a schema needs, for psql; `given` are those of an app of that name."""
    home = Home(schema, None, ())
    names = {"schema": quoted(schema), "home": f"{quoted(home.app)}, pg_temp", "app": app.replace("'", "''")}
    parts = [_HEAD.format(**names, ledger=sql("ledger/create"), lock=sql("ledger/lock"))]
    parts += [_ONE.format(no=no, name=name, hash=digest(text), script=text) for no, name, text in migrations()]
    if given:
        parts.append(f"create schema if not exists {quoted(home.app)};\n")
    parts += [_APP.format(**names, no=one.no, name=one.name, hash=one.hash, script=one.script) for one in given]
    tail = _TAIL.format(**names)
    if given:
        tail += "".join(line.replace(quoted(schema), quoted(home.app)) + "\n" for line in tail.splitlines()[3:])
    return "\n".join([*parts, tail])

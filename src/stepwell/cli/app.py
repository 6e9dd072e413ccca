"""`--app module:app`: the user's code, found as uvicorn finds a web app."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.cli.options import setting_option
from stepwell.model.errors import Invalid, StepwellError

if TYPE_CHECKING:  # loaded only by whoever has an app: help and completion are to be quick
    from stepwell.workflow.app import App

F = TypeVar("F", bound=Callable[..., Any])
_FORM = "Give MODULE:APP, as shop:app for `app = App(...)` in shop.py; a dotted module is one in a package."


def app_option(command: F) -> F:
    """Adds --app."""
    return setting_option("STEPWELL_APP", help="The app with workflows, as MODULE:APP; looked for in --cwd, too.")(
        command
    )


def load_app(name: str | None, cwd: Path) -> "App | None":
    """The app that is named, imported with `cwd` first on the path; None for none. Raises `Invalid`."""
    if name is None:
        return None
    from stepwell.workflow.app import App

    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or not all(part.isidentifier() for part in name.replace(":", ".").split(".")):
        raise Invalid(f"--app cannot be {name!r:.80}", hint=_FORM, field="app")
    app: Any = _imported(module_name, cwd)
    for part in attribute.split("."):
        app = getattr(app, part, None)
    if not isinstance(app, App):
        found = f"{name} is no App but {type(app).__name__}" if app is not None else f"{module_name} has no {attribute}"
        raise Invalid(found, hint=_apps_in(sys.modules[module_name], App), field="app")
    return app


def _imported(name: str, cwd: Path) -> Any:
    if str(cwd) not in sys.path:
        sys.path.insert(0, str(cwd))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Invalid(f"no module {name} in {cwd} or on the path", hint=_FORM, field="app") from None
        raise _broken(name, error) from error
    except StepwellError as error:
        raise Invalid(f"{name} cannot be loaded: {error.message}", hint=error.hint, field="app") from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> Invalid:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = "" if last is None else f" ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})"
    hint = f"`python -c 'import {name}'` shows all of it."
    return Invalid(f"{name} cannot be loaded: {type(error).__name__}: {error}{where}", hint=hint, field="app")


def _apps_in(module: Any, kind: type) -> str:
    names = [f"{module.__name__}:{name}" for name, value in vars(module).items() if isinstance(value, kind)]
    return f"There is {', '.join(names)}." if names else _FORM

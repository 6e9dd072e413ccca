"""`Module` and `App`: where functions are registered, by decorators that know their types (source: API, App)."""

import re
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from stepwell.functions.action_context import ActionContext
from stepwell.functions.contexts import MutationContext, QueryContext
from stepwell.functions.define import (
    Action,
    Authorize,
    CallOptions,
    Duration,
    Function,
    Mutation,
    Pool,
    Query,
    Retry,
    Workflow,
)
from stepwell.functions.options import check_options
from stepwell.functions.registry import Registry
from stepwell.model.errors import Invalid
from stepwell.workflow.context import Context

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Function[Any, Any])
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}", re.ASCII)


class ActionDecorator:
    """What `module.action(...)` with options gives: the decorator."""

    def __init__(self, module: "Module", options: Mapping[str, Any]) -> None:
        self._module, self._options = module, options

    @overload
    def __call__(self, fn: Callable[Concatenate[ActionContext, P], Coroutine[Any, Any, R]], /) -> Action[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[ActionContext, P], R], /) -> Action[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Action[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Action[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Action[..., Any]:
        return self._module._register(Action, fn, self._options)


class Module:
    """A named group of functions. The path of each is `<module>:<function>`, wherever its file is."""

    def __init__(self, name: str, *, authorize: Authorize | None = None) -> None:
        self.name, self.authorize = _module_name(name), authorize
        self.registry = Registry()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @overload
    def workflow(self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        name: str = ...,
        version: str = ...,
        on: str | None = None,
        pool: Pool = ...,
        deadline: Duration = ...,
    ) -> Callable[[Callable[Concatenate[Context, P], Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
    def workflow(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Registers a durable function: `async def` with a Context first.

        `name` replaces the whole path. `version` is stamped on runs: keep the old function under the old version until
        its runs have ended. `on` is the type of the events that start it. `deadline` is for a run.
        """
        return self._decorate(Workflow, fn, options)

    @overload
    def action(self, fn: Callable[Concatenate[ActionContext, P], Coroutine[Any, Any, R]], /) -> Action[P, R]: ...
    @overload
    def action(self, fn: Callable[Concatenate[ActionContext, P], R], /) -> Action[P, R]: ...
    @overload
    def action(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Action[P, R]: ...
    @overload
    def action(self, fn: Callable[P, R], /) -> Action[P, R]: ...
    @overload
    def action(self, /, *, internal: bool = True, **options: Unpack[CallOptions]) -> ActionDecorator: ...
    def action(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Registers a function that any worker with it runs: `async def`, or `def`, which gets a thread.

        An ActionContext as its first parameter is optional. Options are those of a call; a call's own win.
        """
        if fn is not None:
            return self._register(Action, fn, {})
        check_options(Action.kind, options)
        return ActionDecorator(self, options)

    @overload
    def mutation(self, fn: Callable[Concatenate[MutationContext, P], R], /) -> Mutation[P, R]: ...
    @overload
    def mutation(
        self, /, *, name: str = ..., internal: bool = True, authorize: Authorize = ...
    ) -> Callable[[Callable[Concatenate[MutationContext, P], R]], Mutation[P, R]]: ...
    def mutation(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Registers a `def` that changes the app's tables, with a MutationContext first: all of it commits, or nothing.

        `internal=False` lets it be called from outside, which needs an `authorize`, its own or the module's.
        """
        return self._decorate(Mutation, fn, options)

    @overload
    def query(self, fn: Callable[Concatenate[QueryContext, P], R], /) -> Query[P, R]: ...
    @overload
    def query(
        self, /, *, name: str = ..., internal: bool = True, authorize: Authorize = ...
    ) -> Callable[[Callable[Concatenate[QueryContext, P], R]], Query[P, R]]: ...
    def query(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Registers a `def` that reads the app's tables in one snapshot, with a QueryContext first."""
        return self._decorate(Query, fn, options)

    def _decorate(self, kind: type[F], fn: Callable[..., Any] | None, options: Mapping[str, Any]) -> Any:
        if fn is not None:
            return self._register(kind, fn, options)
        check_options(kind.kind, options)
        return lambda fn: self._register(kind, fn, options)

    def _register(self, kind: type[F], fn: Callable[..., Any], options: Mapping[str, Any]) -> F:
        function = kind(self.name, fn, {"authorize": self.authorize, **options})
        if not function.internal and function.authorize is None:
            hint = "Say who may: @app.query(internal=False, authorize=...), or authorize= of the module."
            raise Invalid(f"{function.path} is open to everybody", field="authorize", hint=hint)
        self.registry.register(function)
        return function


class App(Module):
    """All functions of a program: its own, and those of the modules that it includes.

    `retry` is the policy of actions that say nothing, and of steps that say retry=True. `migrations` is a folder of
    NNNN_name.sql for the app's own tables; a relative one is beside the file that makes the app.
    """

    def __init__(
        self,
        name: str,
        *,
        retry: Retry | None = None,
        migrations: Path | str | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        super().__init__(name, authorize=authorize)
        if retry is not None and not isinstance(retry, Retry):
            raise Invalid(f"retry must be a Retry, not {retry!r:.80}", field="retry", hint="For example Retry(5).")
        self.retry = retry
        self.migrations = None if migrations is None else _beside(migrations, sys._getframe(1).f_globals)

    def include(self, *modules: Module) -> None:
        """Adds the functions of modules, those that they get later, too. Raises Invalid for a path that is there."""
        for module in modules:
            if not isinstance(module, Module):
                raise Invalid(f"{module!r:.80} is no Module", hint='For example admin = Module("admin").')
            self.registry.include(module.registry)


def _module_name(name: object) -> str:
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    hint = "Letters, digits, `_`, `-` and `.`, at most 64, beginning with a letter: it is a part of every path."
    raise Invalid(f"{name!r:.80} cannot be the name of a module", hint=hint)


def _beside(path: Path | str, caller: Mapping[str, Any]) -> Path:
    """A path as the file means it that holds the call; without a file, from the working directory."""
    if not isinstance(path, str | Path):
        raise Invalid(f"migrations must be a folder, not {path!r:.80}", field="migrations", hint="Give a path.")
    file = caller.get("__file__")
    return Path(path) if file is None else Path(file).resolve().parent / path

// Rebases the fork's patch stack onto an upstream release (source: spec codex-flows 6.4, 6.5, fault 38).
//
// The twin of `peezy-codex-fork-python/exec/rebase_patch_stack.py`: the same rules in the same order. It runs inside
// Codex Code Mode, which has no files and no processes of its own: `tools.exec_command` runs every command, `flow` and
// `result` come with the source. Any attempt may be killed anywhere: the next one goes on from what git says.

const KEPT_CHARS = 4_000; // of what each command said, in the artifacts
const CONTEXT_CHARS = 20_000; // of the diff and of the patch that conflict
const MAX_CHECKS = 30;
const YIELD_MS = flow.config?.yield_time_ms ?? 30_000; // how long the tool may wait before it answers
const MAX_OUTPUT_TOKENS = 20_000;
const TRUTHY = new Set(["1", "true", "yes", "on"]);
const FLAGS = ["COMMIT", "FORCE", "PUSH", "PUBLISH", "SQUASH_PATCH_STACK"].map((name) => `CODEX_FLOW_${name}`);
const TAG = /^[A-Za-z0-9][A-Za-z0-9._+\/-]{0,199}$/;
const VERSION = /\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?/;
const SECRETS = [
  [/:\/\/[^\/\s@]+@/g, "://***@"],
  [/\b(?:gh[a-z]_|github_pat_|npm_|sk-)[A-Za-z0-9_-]{10,}/g, "***"],
  [/(authorization:|bearer|_authtoken=)\s*\S+/gi, "$1 ***"],
];

/** How the work ended, thrown from wherever it did. */
class End {
  constructor(status, message) {
    Object.assign(this, { status, message });
  }
}

/** How a command ended. stdout and stderr are one text here, as the tool gives them. */
class Done {
  constructor(argv, code, output) {
    Object.assign(this, { argv, code, output });
  }

  get text() {
    return this.output.trimEnd();
  }

  /** The last line that is an object's name, or "". */
  get sha() {
    return this.text.split("\n").findLast((line) => /^[0-9a-f]{40,64}$/.test(line.trim()))?.trim() ?? "";
  }
}

/** Runs commands in one folder, and remembers them for the artifacts. */
class Shell {
  cwd = flow.root;
  env = { GIT_EDITOR: "true", GIT_TERMINAL_PROMPT: "0" };
  commands = [];

  /** A command that may fail. */
  async look(argv, { stdin = "", cwd = this.cwd } = {}) {
    const command = argv.map(quoted).join(" ");
    text(`$ ${hidden(command)}\n`);
    const env = Object.entries(this.env).map(([name, value]) => quoted(`${name}=${value}`));
    const input = stdin ? `printf %s ${quoted(stdin)} | ` : "";
    const { code, output } = await executed(`${input}env ${env.join(" ")} ${command}`, cwd);
    this.commands.push({ command: hidden(command), exitCode: code, stdout: tail(output, KEPT_CHARS), stderr: "" });
    return new Done(argv, code, output);
  }

  /** A command that must succeed. */
  async run(argv, more) {
    const done = await this.look(argv, more);
    if (done.code !== 0) throw commandFailed(done);
    return done;
  }
}

/** Config and environment as one: a variable that is not empty beats the config. */
class Settings {
  constructor(config, environ) {
    Object.assign(this, { config, environ });
    Object.assign(this, { commit: this.flag("commit", true), force: this.flag("force", false) });
    Object.assign(this, { push: this.flag("push", false), publish: this.flag("publish", false) });
    this.squash = this.flag("squash_patch_stack", true);
    this.package = this.text("package_name");
    this.branch = this.text("target_branch");
    this.upstream = this.text("upstream_remote", "upstream");
    this.upstreamUrl = this.text("upstream_repo_url");
    this.remote = this.text("push_remote", "origin");
  }

  /** The variables that these settings may come from. */
  static variables(config) {
    const named = Object.keys(config).filter((key) => key.endsWith("_env")).map((key) => config[key]);
    return ["HOME", ...FLAGS, ...named].filter((name) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name));
  }

  /** `name`, or what the variable says that `name_env` names. */
  text(name, fallback = "") {
    const value = (this.environ[this.config[`${name}_env`]] ?? "").trim() || (this.config[name] ?? fallback);
    return typeof value === "string" ? value.trim() : fallback;
  }

  /** `CODEX_FLOW_<NAME>`, or the config's `name`. */
  flag(name, fallback) {
    const value = (this.environ[`CODEX_FLOW_${name.toUpperCase()}`] ?? "").trim();
    return value ? TRUTHY.has(value.toLowerCase()) : (this.config[name] ?? fallback) === true;
  }

  /** A path, with `~/` filled in. */
  path(name) {
    const value = this.text(name);
    return value.startsWith("~/") ? `${this.environ.HOME ?? ""}${value.slice(1)}` : value;
  }

  /** The commands that verify. */
  checks() {
    const checks = this.config.checks ?? [];
    if (!Array.isArray(checks) || checks.length > MAX_CHECKS || !checks.every(isCommand)) {
      const shape = `a list of at most ${MAX_CHECKS} commands, each a list of texts`;
      throw new End("failed", `config.checks must be ${shape}`);
    }
    return checks;
  }
}

/** One attempt. Its methods are the steps of the work, in order; `facts` becomes the artifacts. */
class Fork {
  shell = new Shell();
  facts = {};

  async answer() {
    const end = await this.work().catch((thrown) => thrown);
    const { status, message } = end instanceof End ? end : new End("failed", String(end?.message ?? end));
    return { status, message: hidden(message), artifacts: { ...this.facts, commands: this.shell.commands } };
  }

  /** All the work, in the order of the spec. Ends by throwing. */
  async work() {
    const config = flow.config ?? {};
    this.settings = new Settings(config, await environment(Settings.variables(config)));
    await this.prepare();
    await this.fetch();
    await this.rebase();
    await this.squash();
    await this.verify();
    await this.deliver();
  }

  // ── before anything is changed ──────────────────────────────────────────────────────────────────────────────────

  async prepare() {
    const { settings } = this;
    this.release = released(flow.event.payload);
    this.checks = settings.checks();
    Object.assign(this.facts, this.release);
    const repo = settings.path("codex_repo");
    if (!repo.startsWith("/")) {
      throw new End("blocked", "no repository: set PEEZY_CODEX_REPO or config.codex_repo to an absolute path");
    }
    Object.assign(this.facts, { repo, branch: settings.branch });
    if (!settings.force && (await this.published())) {
      throw new End("skipped", `${settings.package}@${this.release.version} is published`);
    }
    await this.enter(repo);
    if (await this.rebasing()) {
      this.facts.conflict = await this.conflict();
      throw new End("blocked", `a rebase is under way in ${repo}`);
    }
    await this.switch();
  }

  /** Whether npm knows the version: it must end well, and it must name the version. */
  async published() {
    const named = `${this.settings.package}@${this.release.version}`;
    const done = await this.shell.look(["npm", "view", named, "version", "--json"]);
    if (done.code === 127) throw commandFailed(done);
    const lines = done.output.split("\n").map((line) => line.replace(/[\s"',[\]]/g, ""));
    return done.code === 0 && lines.includes(this.release.version);
  }

  async enter(repo) {
    const inside = await this.shell.look(["git", "-C", repo, "rev-parse", "--is-inside-work-tree"]);
    if (inside.text !== "true") throw new End("failed", `${repo} is no git work tree`);
    const required = this.settings.text("required_file", "codex-rs/Cargo.toml");
    if (required && (await this.shell.look(["test", "-f", `${repo}/${required}`])).code !== 0) {
      throw new End("failed", `${repo} has no ${required}`);
    }
    this.repo = this.shell.cwd = repo;
  }

  async rebasing() {
    for (const name of ["rebase-merge", "rebase-apply"]) {
      const folder = (await this.shell.run(["git", "rev-parse", "--git-path", name])).text;
      if ((await this.shell.look(["test", "-d", folder])).code === 0) return true;
    }
    return false;
  }

  /** What somebody needs who goes on by hand. */
  async conflict() {
    const status = await this.shell.look(["git", "status", "--short", "--branch"]);
    const unmerged = await this.shell.look(["git", "diff", "--name-only", "--diff-filter=U"]);
    const diff = await this.shell.look(["git", "diff"]);
    const patch = await this.shell.look(["git", "rebase", "--show-current-patch"]);
    return {
      status: tail(status.output, KEPT_CHARS),
      unmergedFiles: unmerged.text.split("\n").filter(Boolean).slice(0, 1_000),
      diff: tail(diff.output, CONTEXT_CHARS),
      currentPatch: tail(patch.output, CONTEXT_CHARS),
      prompt: this.prompt(),
    };
  }

  prompt() {
    return (
      `The rebase of ${this.settings.branch} onto ${this.release.tag} is paused in ${this.repo}. ` +
      "Resolve the unmerged files so that the fork's patch keeps its purpose on the new upstream code, " +
      "`git add` them, and run `git rebase --continue` until it ends (`git rebase --abort` gives up). " +
      `Then replay the event ${flow.event.id}: the flow goes on with its checks.`
    );
  }

  async switch() {
    const { branch } = this.settings;
    const current = (await this.shell.look(["git", "symbolic-ref", "--quiet", "--short", "HEAD"])).text;
    const dirty = (await this.shell.run(["git", "status", "--porcelain=v1"])).text;
    if (dirty) {
      this.facts.dirtyStatus = tail(dirty, KEPT_CHARS);
      throw new End("blocked", `the work tree ${this.repo} has changes (on ${current || "no branch"})`);
    }
    if (current !== branch) await this.shell.run(["git", "switch", branch]);
  }

  // ── the branch ──────────────────────────────────────────────────────────────────────────────────────────────────

  async fetch() {
    const { upstream, upstreamUrl } = this.settings;
    if (upstreamUrl) {
      const known = (await this.shell.look(["git", "remote", "get-url", upstream])).code === 0;
      await this.shell.run(["git", "remote", known ? "set-url" : "add", upstream, upstreamUrl]);
    }
    await this.shell.run(["git", "fetch", upstream, "--tags", "--prune"]);
    const commit = `refs/tags/${this.release.tag}^{commit}`;
    this.base = (await this.shell.run(["git", "rev-parse", "--verify", commit])).sha;
  }

  async rebase() {
    this.facts.beforeSha = await this.keepBefore();
    this.facts.upstreamSha = this.base;
    const done = await this.shell.look(["git", "rebase", this.base]);
    if (done.code !== 0) {
      if (!(await this.rebasing())) throw commandFailed(done);
      this.facts.conflict = await this.conflict();
      const what = `the rebase onto ${this.release.tag} has conflicts; it is paused`;
      throw new End("needs_intervention", what);
    }
    this.facts.afterSha = await this.head();
  }

  /** The branch as it was before any attempt, under a ref of its own. Without `commit` its place is taken by a
   * branch to try on; one that an attempt has rebased already, perhaps with help, is taken again. */
  async keepBefore() {
    const { shell } = this;
    const { commit } = this.settings;
    const ref = `refs/stepwell/before/${this.release.tag}`;
    const head = await this.head();
    const kept = (await shell.look(["git", "rev-parse", "--verify", "--quiet", ref])).sha;
    this.candidate = `stepwell/${this.release.tag}`;
    if (commit && (await this.isRebased("HEAD"))) return kept || head;
    if (!commit && kept === head && (await this.isRebased(this.candidate))) {
      await shell.run(["git", "switch", this.candidate]);
      return head;
    }
    await shell.run(["git", "update-ref", ref, head]);
    if (!commit) await shell.run(["git", "switch", "-C", this.candidate]);
    return head;
  }

  async isRebased(commit) {
    return (await this.shell.look(["git", "merge-base", "--is-ancestor", this.base, commit])).code === 0;
  }

  /** One commit with the tree of the last, made in one act: no kill can leave half of it. */
  async squash() {
    const range = `${this.base}..HEAD`;
    const count = Number((await this.shell.run(["git", "rev-list", "--count", range])).text);
    if (!this.settings.squash || !(count > 1)) return;
    const message = `peezy: codex fork patches for ${this.release.tag}`;
    const made = (await this.shell.run(["git", "commit-tree", "HEAD^{tree}", "-p", this.base, "-m", message])).sha;
    await this.shell.run(["git", "update-ref", "-m", message, "HEAD", made, this.facts.afterSha]);
    Object.assign(this.facts, { squashed: count, afterSha: made });
  }

  async head() {
    return (await this.shell.run(["git", "rev-parse", "HEAD"])).sha;
  }

  // ── the checks, and what leaves the machine ─────────────────────────────────────────────────────────────────────

  async verify() {
    const { settings } = this;
    const cwd = `${this.repo}/${settings.text("checks_dir", "codex-rs")}`;
    const target = settings.path("cargo_target_dir") || `${cwd}/target`;
    this.shell.env.CARGO_TARGET_DIR = target;
    const words = { target, package: settings.package, ...this.release };
    const binary = filled(settings.text("binary"), words);
    for (const check of this.checks) {
      const done = await this.shell.run(check.map((word) => filled(word, words)), { cwd });
      if (binary && done.argv[0] === binary) {
        Object.assign(this.facts, { binary, binaryVersion: tail(done.text, 200) });
      }
    }
  }

  async deliver() {
    const { branch, commit, push, publish, remote } = this.settings;
    if (!commit) {
      await this.shell.run(["git", "switch", branch]);
      Object.assign(this.facts, { committed: false, candidate: this.candidate, pushed: false, published: false });
      throw new End("changed", `${this.candidate} holds the rebased patches; ${branch} was left as it is`);
    }
    if (push) await this.shell.run(["git", "push", remote, `HEAD:${branch}`, "--force-with-lease"]);
    if (publish) await this.publish(this.facts.afterSha);
    Object.assign(this.facts, { committed: true, pushed: push, published: publish });
    throw new End("changed", `${branch} is rebased onto ${this.release.tag}`);
  }

  /** The annotated tag `rust-v<version>`, on the remote only: upstream's tag has the same name here. */
  async publish(head) {
    const { remote, package: packageName } = this.settings;
    const name = `rust-v${this.release.version}`;
    const there = await this.shell.run(["git", "ls-remote", remote, `refs/tags/${name}`, `refs/tags/${name}^{}`]);
    const known = [...there.output.matchAll(/^([0-9a-f]{40,64})\t/gm)].map((match) => match[1]);
    if (known.length > 0) {
      if (known.includes(head)) return;
      throw new End("failed", `the tag ${name} is on ${remote} already, for another commit`);
    }
    const tagger = (await this.shell.run(["git", "var", "GIT_COMMITTER_IDENT"])).text;
    const message = `${packageName} ${this.release.version}`;
    const stdin = `object ${head}\ntype commit\ntag ${name}\ntagger ${tagger}\n\n${message}\n`;
    const made = (await this.shell.run(["git", "mktag"], { stdin })).sha;
    await this.shell.run(["git", "push", remote, `${made}:refs/tags/${name}`]);
  }
}

/**
 * Runs one shell line and waits for its end.
 *
 * The tool answers when the command ends or after `yield_time_ms`, whichever comes first. In the second case there is no
 * exit code but a session, which is asked again until there is one. The step's timeout bounds the whole.
 */
async function executed(cmd, workdir) {
  const common = { yield_time_ms: YIELD_MS, max_output_tokens: MAX_OUTPUT_TOKENS };
  let answer = await tools.exec_command({ cmd, workdir, ...common });
  let output = answer.output ?? "";
  while (exitCode(answer) === undefined) {
    const session = answer.session_id ?? answer.sessionId;
    if (session === undefined || session === null || typeof tools.write_stdin !== "function") {
      throw new Error(`exec_command gave back ${hidden(cmd).slice(0, 200)} before its end, and no session to ask`);
    }
    answer = await tools.write_stdin({ session_id: session, chars: "", ...common });
    output = (output + (answer.output ?? "")).slice(-1_000_000);
  }
  return { code: exitCode(answer), output };
}

function exitCode(answer) {
  return answer.exit_code ?? answer.exitCode ?? undefined;
}

/** The variables of these names that the commands have; absent ones are empty. */
async function environment(names) {
  const show = names.map((name) => `printf '%s=%s\\n' ${name} "\${${name}-}"`).join("; ");
  const { output } = await executed(show, flow.root);
  const found = output.split("\n").map((line) => line.match(/^(\w+)=(.*)$/)).filter(Boolean);
  return Object.fromEntries(found.map(([, name, value]) => [name, value]));
}

/** What the event says: a tag, and the version in it. */
function released(payload) {
  const tag = payload?.tag;
  const found = typeof tag === "string" && TAG.test(tag) ? tag.match(VERSION) : null;
  if (!found) throw new End("failed", `the event's payload.tag has no version: ${JSON.stringify(tag)}`.slice(0, 200));
  return { tag, version: found[0] };
}

function commandFailed(done) {
  return new End("failed", `${done.argv.map(quoted).join(" ")} ended with ${done.code}`);
}

function isCommand(value) {
  return Array.isArray(value) && value.length > 0 && value.every((word) => typeof word === "string");
}

/** A word of a check with its places filled in; other braces stay. */
function filled(word, words) {
  return word.replace(/\{(target|package|version|tag)\}/g, (_, name) => words[name]);
}

/** A word that the shell takes as it is. */
function quoted(word) {
  return /^[A-Za-z0-9_@%+=:,.\/-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** Without what looks like a secret. */
function hidden(value) {
  return SECRETS.reduce((found, [pattern, instead]) => found.replace(pattern, instead), value);
}

/** The end of a text, where commands say what went wrong, without secrets. */
function tail(value, chars) {
  const safe = hidden(value);
  return (safe.length <= chars ? safe : `…${safe.slice(1 - chars)}`).toWellFormed();
}

result(await new Fork().answer());

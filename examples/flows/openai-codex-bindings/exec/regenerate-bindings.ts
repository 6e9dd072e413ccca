// Regenerates the app-server bindings from a release (source: spec codex-flows 6.4, 6.5, fault 38).
//
// Any attempt may be killed anywhere. The next one knows a half-made tree for a run's own (workfiles.ts), cleans it and
// begins again; a commit that was made but not delivered is found by its subject and delivered.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Release, type Settings, filled, release, settings } from "./settings.ts";
import { Shell, hidden, tail } from "./shell.ts";
import { WorkFiles } from "./workfiles.ts";

const COMMITS_LOOKED_AT = 50;

/** How the work ended, thrown from wherever it did. */
class End {
  constructor(
    public status: "skipped" | "changed" | "blocked" | "failed",
    public message: string,
  ) {}
}

type Context = {
  flow: { config?: Record<string, unknown>; event: { id: string; payload: unknown } };
  runtime?: { runId?: string };
};

/** One attempt. Its methods are the steps of the work, in order; `facts` becomes the artifacts. */
class Bindings {
  facts: Record<string, unknown> = {};
  shell = new Shell(process.cwd());
  runId: string;
  settings!: Settings;
  release!: Release;
  files!: WorkFiles;

  constructor(private context: Context) {
    this.runId = context.runtime?.runId ?? context.flow.event.id;
  }

  async answer() {
    const thrown: unknown = await this.work().catch((error: unknown) => error);
    const { status, message } = thrown instanceof End ? thrown : new End("failed", errorText(thrown));
    if (!(thrown instanceof End) && this.files) await this.cleanUp();
    return { status, message: hidden(message), artifacts: { ...this.facts, commands: this.shell.commands } };
  }

  /** All the work, in the order of the spec. Ends by throwing. */
  async work(): Promise<never> {
    this.release = release(this.context.flow.event.payload);
    this.settings = settings(this.context.flow.config ?? {}, process.env);
    Object.assign(this.facts, this.release, { package: this.settings.package });
    if (!this.settings.force && (await this.published())) {
      throw new End("skipped", `${this.settings.package}@${this.release.version} is published`);
    }
    await this.begin();
    await this.generate();
    await this.check();
    const committed = await this.commit();
    const other = committed ? await this.files.dirty() : "";
    if (other) this.facts.otherChanges = tail(other); // of a check or of a user: the next run will be blocked by them
    return this.deliver(committed);
  }

  /** Whether npm knows the version: it must end well, and it must name the version. */
  async published(): Promise<boolean> {
    const named = `${this.settings.package}@${this.release.version}`;
    const done = await this.shell.look(["npm", "view", named, "version", "--json"]);
    if (done.code === 127) throw new Error(`npm cannot be started: ${done.stderr}`);
    const lines = done.stdout.split("\n").map((line) => line.replace(/[\s"',[\]]/g, ""));
    return done.code === 0 && lines.includes(this.release.version);
  }

  /** To the root of the work tree, past what an earlier run left; then the note, before the first change. */
  async begin(): Promise<void> {
    this.shell.cwd = await this.shell.run(["git", "rev-parse", "--show-toplevel"]);
    const { generatedDir, packageJson, lockfile } = this.settings;
    const files = await WorkFiles.open(this.shell, [generatedDir, packageJson, lockfile]);
    const note = files.note();
    if (note && (!note.done || note.runId === this.runId)) {
      this.facts.unfinished = await files.restore(`what a run for ${note.tag} had made`);
      files.forget(); // what changes from here on is somebody else's
    }
    const dirty = await files.dirty();
    if (dirty) {
      this.facts.dirtyStatus = tail(dirty);
      throw new End("blocked", `the work tree ${this.shell.cwd} has changes`);
    }
    files.write({ runId: this.runId, tag: this.release.tag, done: false });
    this.files = files;
  }

  async generate(): Promise<void> {
    const { codexPackage, generatedDir, packageJson } = this.settings;
    const made = ["app-server", "generate-ts", "--experimental", "--out", generatedDir];
    await this.shell.run(["npx", "-y", `${codexPackage}@${this.release.version}`, ...made]);
    const path = join(this.shell.cwd, packageJson);
    const described = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, `${JSON.stringify({ ...described, version: this.release.version }, null, "\t")}\n`);
  }

  async check(): Promise<void> {
    const words = { package: this.settings.package, ...this.release };
    for (const check of this.settings.checks) await this.shell.run(check.map((word) => filled(word, words)));
  }

  /** Whether the work is a commit now, of this attempt or of an earlier one. */
  async commit(): Promise<boolean> {
    const { push, publish, commit } = this.settings;
    const subject = `flow: update codex-flows for openai codex ${this.release.version}`;
    if (!(await this.files.changes())) {
      const earlier = await this.earlier(subject);
      if (earlier && (push || publish || earlier.runId === this.runId)) {
        this.facts.commit = earlier.sha;
        return true;
      }
      this.files.forget();
      throw new End("skipped", `the bindings are those of ${this.release.version} already`);
    }
    if (!commit) return false;
    const paths = await this.files.present();
    await this.shell.run(["git", "add", "--", ...paths]);
    const message = `${subject}\n\nStepwell-Run: ${this.runId}`;
    await this.shell.run(["git", "commit", "--quiet", "-m", message, "--", ...paths]);
    this.facts.commit = await this.shell.run(["git", "rev-parse", "HEAD"]);
    return true;
  }

  /** The commit of this version among the last ones, and the run that made it. */
  async earlier(subject: string): Promise<{ sha: string; runId: string } | undefined> {
    const format = "--format=%H%x09%(trailers:key=Stepwell-Run,valueonly,separator=%x2C)%x09%s";
    const log = await this.shell.run(["git", "log", "-n", String(COMMITS_LOOKED_AT), format]);
    const commits = log.split("\n").map((line) => line.split("\t"));
    const found = commits.find(([, , one]) => one === subject);
    return found && { sha: found[0]!, runId: found[1]! };
  }

  /** What leaves the machine, only as the flags say, and only what is committed. */
  async deliver(committed: boolean): Promise<never> {
    const { branch, package: name, publish, publishRemote, push, pushRemote, githubRepo, workflow } = this.settings;
    const [pushed, published] = [committed && push, committed && publish];
    Object.assign(this.facts, { committed, pushed: false, published: false });
    if (pushed) await this.shell.run(["git", "push", pushRemote, `HEAD:${branch}`]);
    this.facts.pushed = pushed;
    if (published) {
      await this.shell.run(["git", "push", publishRemote, `HEAD:${branch}`]);
      await this.shell.run(["gh", "workflow", "run", workflow, "--repo", githubRepo, "-f", `confirm_package=${name}`]);
    }
    this.facts.published = published;
    if (committed) this.files.forget();
    else this.files.write({ runId: this.runId, tag: this.release.tag, done: true });
    const where = committed ? "committed" : "in the work tree, not committed; nothing was pushed or published";
    throw new End("changed", `the bindings of ${this.release.version} are ${where}`);
  }

  /** After a failure: nothing of this run stays in the tree, so that the next one is not blocked by it. */
  async cleanUp(): Promise<void> {
    try {
      this.facts.unfinished = await this.files.restore(`what a failed run for ${this.release.tag} had made`);
      this.files.forget();
    } catch (error) {
      this.facts.cleanUp = `failed, left to the next run: ${hidden(errorText(error))}`;
    }
  }
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const context: Context = JSON.parse(await Bun.stdin.text());
console.log(`FLOW_RESULT ${JSON.stringify(await new Bindings(context).answer())}`);

// The files that a run makes, and the note by which the next one knows them for a run's own.
//
// A run begins on a clean work tree and writes the note before its first change. A tree that is dirty later, in the
// run's own files and with the note there, is what a killed run left; nobody else's changes are ever touched.

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Shell } from "./shell.ts";

export const SAVED_REF = "refs/stepwell/openai-codex-bindings/unfinished";

/** `done`: the run ended and left its files on purpose, uncommitted. */
export type Note = { runId: string; tag: string; done: boolean };

export class WorkFiles {
  private constructor(
    private shell: Shell,
    private paths: string[],
    private notePath: string,
    private indexPath: string,
  ) {}

  static async open(shell: Shell, paths: string[]): Promise<WorkFiles> {
    const path = async (name: string) => join(shell.cwd, await shell.run(["git", "rev-parse", "--git-path", name]));
    const note = await path("stepwell-openai-codex-bindings.json");
    return new WorkFiles(shell, paths, note, await path("stepwell-openai-codex-bindings.index"));
  }

  note(): Note | null {
    try {
      return JSON.parse(readFileSync(this.notePath, "utf8"));
    } catch {
      return null; // absent, or not ours to understand
    }
  }

  write(note: Note): void {
    mkdirSync(dirname(this.notePath), { recursive: true });
    writeFileSync(`${this.notePath}.new`, JSON.stringify(note));
    renameSync(`${this.notePath}.new`, this.notePath);
  }

  forget(): void {
    rmSync(this.notePath, { force: true });
  }

  /** All changes of the work tree, as git lists them; "" when it is clean. */
  async dirty(): Promise<string> {
    return this.shell.run(["git", "status", "--porcelain=v1"]);
  }

  /** Changes in the run's own files. */
  async changes(): Promise<string> {
    return this.shell.run(["git", "status", "--porcelain=v1", "--untracked-files=all", "--", ...this.paths]);
  }

  /** The own paths that git can be asked about: they are there, or it knows them. */
  async present(): Promise<string[]> {
    const found = [];
    for (const path of this.paths) {
      const known = existsSync(join(this.shell.cwd, path)) || (await this.isTracked(path));
      if (known) found.push(path);
    }
    return found;
  }

  /**
   * Sets the run's own files back to HEAD. What they held is kept as a commit at `SAVED_REF`, since a user may have had
   * a hand in it meanwhile. Gives that commit, or null when nothing had changed.
   */
  async restore(message: string): Promise<string | null> {
    if (!(await this.changes())) return null;
    const saved = await this.save(message);
    const paths = await this.present();
    await this.shell.run(["git", "reset", "--quiet", "--", ...paths]);
    await this.shell.run(["git", "clean", "-fdq", "--", ...paths]);
    for (const path of paths) {
      if (await this.isTracked(path)) await this.shell.run(["git", "checkout", "--", path]);
    }
    return saved;
  }

  private async isTracked(path: string): Promise<boolean> {
    return (await this.shell.run(["git", "ls-files", "--", path])) !== "";
  }

  private async save(message: string): Promise<string> {
    const env = { GIT_INDEX_FILE: this.indexPath }; // the user's index stays as it is
    await this.shell.run(["git", "read-tree", "HEAD"], { env });
    await this.shell.run(["git", "add", "--all", "--", ...(await this.present())], { env });
    const tree = await this.shell.run(["git", "write-tree"], { env });
    const commit = await this.shell.run(["git", "commit-tree", tree, "-p", "HEAD", "-m", message]);
    await this.shell.run(["git", "update-ref", SAVED_REF, commit]);
    rmSync(this.indexPath, { force: true });
    return commit;
  }
}

// Runs commands without a shell, and remembers them for the artifacts: bounded, and without secrets.

const KEPT_CHARS = 4_000; // of stdout and of stderr, for each command in the artifacts
const READ_BYTES = 1_000_000; // of what a command says, the last ones
const SECRETS: [RegExp, string][] = [
  [/:\/\/[^/\s@]+@/g, "://***@"],
  [/\b(?:gh[a-z]_|github_pat_|npm_|sk-)[A-Za-z0-9_-]{10,}/g, "***"],
  [/(authorization:|bearer|_authtoken=)\s*\S+/gi, "$1 ***"],
];
const SECRET_NAME = /TOKEN|SECRET|PASSWORD|API_KEY/;

export type Kept = { command: string; exitCode: number; stdout: string; stderr: string };
export type Done = { argv: string[]; code: number; stdout: string; stderr: string };

/** A command that had to succeed. */
export class CommandFailed extends Error {
  constructor(done: Done) {
    super(`${shown(done.argv)} ended with ${done.code}`);
  }
}

export class Shell {
  commands: Kept[] = [];

  constructor(public cwd: string) {}

  /** A command that may fail. One that cannot be started ends with 127, as in a shell. */
  async look(argv: string[], more: { stdin?: string; env?: Record<string, string> } = {}): Promise<Done> {
    console.log(`$ ${hidden(shown(argv))}`);
    const done = await this.execute(argv, more.stdin ?? "", more.env ?? {});
    const [stdout, stderr] = [tail(done.stdout), tail(done.stderr)];
    this.commands.push({ command: hidden(shown(argv)), exitCode: done.code, stdout, stderr });
    return done;
  }

  /** A command that must succeed. */
  async run(argv: string[], more: { stdin?: string; env?: Record<string, string> } = {}): Promise<string> {
    const done = await this.look(argv, more);
    if (done.code !== 0) throw new CommandFailed(done);
    return done.stdout.trimEnd();
  }

  private async execute(argv: string[], stdin: string, env: Record<string, string>): Promise<Done> {
    // bun may not be on the PATH: this script runs in it.
    const [program, ...rest] = argv[0] === "bun" ? [process.execPath, ...argv.slice(1)] : argv;
    try {
      const child = Bun.spawn([program!, ...rest], {
        cwd: this.cwd,
        env: { ...process.env, GIT_EDITOR: "true", GIT_TERMINAL_PROMPT: "0", ...env },
        stdin: new TextEncoder().encode(stdin),
        stdout: "pipe",
        stderr: "pipe",
      });
      const [stdout, stderr, code] = await Promise.all([end(child.stdout), end(child.stderr), child.exited]);
      return { argv, code, stdout, stderr };
    } catch (error) {
      return { argv, code: 127, stdout: "", stderr: String(error) };
    }
  }
}

/** The last `READ_BYTES` of a stream. */
async function end(stream: ReadableStream<Uint8Array>): Promise<string> {
  let kept = Buffer.alloc(0);
  for await (const chunk of stream) {
    kept = Buffer.concat([kept, chunk]);
    if (kept.length > READ_BYTES) kept = Buffer.from(kept.subarray(-READ_BYTES));
  }
  return kept.toString("utf8");
}

/** A command as one would type it. */
export function shown(argv: string[]): string {
  return argv.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`)).join(" ");
}

/** Without what looks like a secret, or is one of this environment. */
export function hidden(text: string): string {
  for (const [pattern, instead] of SECRETS) text = text.replace(pattern, instead);
  for (const [name, value] of Object.entries(process.env)) {
    if (SECRET_NAME.test(name) && value && value.length >= 8) text = text.replaceAll(value, "***");
  }
  return text;
}

/** The end of a text, where commands say what went wrong, without secrets. */
export function tail(text: string, chars = KEPT_CHARS): string {
  const safe = hidden(text);
  return (safe.length <= chars ? safe : `…${safe.slice(1 - chars)}`).toWellFormed();
}

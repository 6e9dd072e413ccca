// What the flow is told: its config, the environment that beats it, and the release (source: spec codex-flows 6.4).

import { isAbsolute, normalize } from "node:path";

const TRUTHY = new Set(["1", "true", "yes", "on"]);
const TAG = /^[A-Za-z0-9][A-Za-z0-9._+/-]{0,199}$/;
const VERSION = /\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?/;
const MAX_CHECKS = 30;

export type Release = { tag: string; version: string };
export type Settings = {
  package: string;
  codexPackage: string;
  generatedDir: string;
  packageJson: string;
  lockfile: string;
  commit: boolean;
  force: boolean;
  push: boolean;
  publish: boolean;
  branch: string;
  pushRemote: string;
  publishRemote: string;
  githubRepo: string;
  workflow: string;
  checks: string[][];
};

/** Reads them. Throws an Error that names the key which cannot be used. */
export function settings(config: Record<string, unknown>, environ: NodeJS.ProcessEnv): Settings {
  const text = (key: string, fallback = "") => {
    const value = config[key] ?? fallback;
    return typeof value === "string" ? value.trim() : fallback;
  };
  /** A variable that is empty counts as unset; else it beats the config. */
  const flag = (key: string, fallback: boolean) => {
    const value = (environ[`CODEX_FLOW_${key.toUpperCase()}`] ?? "").trim();
    return value ? TRUTHY.has(value.toLowerCase()) : (config[key] ?? fallback) === true;
  };
  const found = {
    package: text("package_name"),
    codexPackage: text("codex_package", "@openai/codex"),
    generatedDir: inside("generated_dir", text("generated_dir")),
    packageJson: inside("package_json", text("package_json")),
    lockfile: inside("lockfile", text("lockfile", "bun.lock")),
    commit: flag("commit", true),
    force: flag("force", false),
    push: flag("push", false),
    publish: flag("publish", false),
    branch: text("branch", "main"),
    pushRemote: text("push_remote", "origin"),
    publishRemote: text("publish_remote", "github"),
    githubRepo: text("github_repo"),
    workflow: text("github_publish_workflow"),
    checks: commands(config.checks ?? []),
  };
  if (!found.package) throw new Error("config.package_name is required");
  if (found.publish && !(found.githubRepo && found.workflow)) {
    throw new Error("publish needs config.github_repo and config.github_publish_workflow");
  }
  return found;
}

/** A path below the repository's root. The run cleans these paths, so the root itself is none. */
function inside(key: string, path: string): string {
  const plain = normalize(path).replace(/\/+$/, "");
  const leaves = isAbsolute(plain) || plain.split("/").includes("..") || plain.split("/").includes(".git");
  if (!path || plain === "." || leaves) throw new Error(`config.${key} must be a path below the repository's root`);
  return plain;
}

function commands(value: unknown): string[][] {
  const isCommand = (one: unknown) => Array.isArray(one) && one.length > 0 && one.every((w) => typeof w === "string");
  if (!Array.isArray(value) || value.length > MAX_CHECKS || !value.every(isCommand)) {
    throw new Error(`config.checks must be a list of at most ${MAX_CHECKS} commands, each a list of texts`);
  }
  return value as string[][];
}

/** What the event says: a tag, and the version in it. */
export function release(payload: unknown): Release {
  const tag = (payload as { tag?: unknown } | null)?.tag;
  const found = typeof tag === "string" && TAG.test(tag) ? tag.match(VERSION) : null;
  if (!found) throw new Error(`the event's payload.tag has no version: ${JSON.stringify(tag)}`.slice(0, 200));
  return { tag: tag as string, version: found[0] };
}

/** A word of a check with its places filled in; other braces stay. */
export function filled(word: string, words: Record<string, string>): string {
  return word.replace(/\{(package|version|tag)\}/g, (_, name: string) => words[name]!);
}

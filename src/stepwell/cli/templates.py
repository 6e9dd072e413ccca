"""The scripts that `stepwell flow new` writes, by runner."""

EXTENSIONS = {"python": ".py", "bun": ".ts", "node": ".mjs", "command": ".sh"}

_PYTHON = """import json
import sys

context = json.load(sys.stdin)  # {"flow": {"name", "version", "root", "step", "config"?, "event"}, "runtime": {...}}
name = context["flow"]["event"]["payload"]["name"]

print("hello", name)  # what is printed is kept with the run
print("FLOW_RESULT " + json.dumps({"status": "completed", "message": f"greeted {name}"}))
"""

_JAVASCRIPT = """let text = "";
for await (const chunk of process.stdin) text += chunk;
// {"flow": {"name", "version", "root", "step", "config"?, "event"}, "runtime": {...}}
const context = JSON.parse(text);
const { name } = context.flow.event.payload;

console.log("hello", name); // what is printed is kept with the run
console.log(`FLOW_RESULT ${JSON.stringify({ status: "completed", message: `greeted ${name}` })}`);
"""

_SHELL = """#!/bin/sh
# On stdin: {"flow": {"name", "version", "root", "step", "config"?, "event"}, "runtime": {...}}
set -eu
context=$(cat)
name=$(printf '%s' "$context" | sed -n 's/^ *"name": "\\(.*\\)",\\{0,1\\}$/\\1/p' | tail -n 1)

echo "hello $name" # what is printed is kept with the run
echo 'FLOW_RESULT {"status": "completed"}'
"""

SCRIPTS = {"python": _PYTHON, "bun": _JAVASCRIPT, "node": _JAVASCRIPT, "command": _SHELL}

_PYTHON_MODULE = '''def flow(context):
    """Called with {"flow": {..., "event"}, "runtime": {...}}; answers the result of the step."""
    name = context["flow"]["event"]["payload"]["name"]
    print("hello", name)  # what is printed is kept with the run
    return {"status": "completed", "message": f"greeted {name}"}
'''

_JAVASCRIPT_MODULE = """// Called with {"flow": {..., "event"}, "runtime": {...}}; answers the result of the step.
export default function greet(context) {
  const { name } = context.flow.event.payload;
  console.log("hello", name); // what is printed is kept with the run
  return { status: "completed", message: `greeted ${name}` };
}
"""

_TYPESCRIPT_MODULE = _JAVASCRIPT_MODULE.replace("(context)", "(context: any)")

MODULES = {"python": _PYTHON_MODULE, "bun": _TYPESCRIPT_MODULE, "node": _JAVASCRIPT_MODULE}

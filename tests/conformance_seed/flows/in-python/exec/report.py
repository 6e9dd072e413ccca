import json
import sys

flow = json.load(sys.stdin)["flow"]
greeting, event = flow["config"]["greeting"], flow["event"]
print(f"{greeting} from {flow['name']}/{flow['step']}")
print("a word to stderr", file=sys.stderr)
artifacts = {"files": event["payload"].get("files", 0)}
result = {"status": event["payload"]["status"], "message": f"{greeting} {event['id']}", "artifacts": artifacts}
print("FLOW_RESULT", json.dumps(result))

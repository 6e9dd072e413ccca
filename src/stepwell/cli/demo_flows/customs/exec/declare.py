import json
import sys

context = json.load(sys.stdin)
print("FLOW_RESULT " + json.dumps({"status": "completed"}))

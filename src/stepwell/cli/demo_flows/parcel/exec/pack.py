import json
import sys
import time

context = json.load(sys.stdin)
for done in range(1, 11):
    time.sleep(0.4)
    print(f"packed {done * 10} %", flush=True)
print("FLOW_RESULT " + json.dumps({"status": "completed", "message": "ready to ship"}))

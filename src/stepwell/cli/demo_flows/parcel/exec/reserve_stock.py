import json
import sys

flow = json.load(sys.stdin)["flow"]
for item in flow["event"]["payload"]["items"]:
    print(f"reserved {item['quantity']} of {item['sku']} in {flow['config']['warehouse']}")
print("FLOW_RESULT " + json.dumps({"status": "changed", "message": "stock reserved"}))

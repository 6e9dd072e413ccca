"""The card network is down at the first try. The run's id is the same for every try, so nobody pays twice."""

import json
import sys

context = json.load(sys.stdin)
attempt = int(context["runtime"]["attemptId"].rpartition(".")[2])
key = context["runtime"]["runId"]
if attempt == 1:
    print("card network: 503", file=sys.stderr)
    sys.exit(1)
print(f"charged {context['flow']['event']['payload']['total']} with key {key[:12]}")
print("FLOW_RESULT " + json.dumps({"status": "completed", "artifacts": {"attempt": attempt}}))

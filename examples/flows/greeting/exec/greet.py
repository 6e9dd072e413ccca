"""Greets a guest, and sends an event of its own: `next` is dispatched together with the result."""

import json
import sys

flow = json.load(sys.stdin)["flow"]
name = flow["event"]["payload"]["name"]
text = f"{flow['config']['greeting']}, {name}!"
print(text)
greeted = {"type": "guest.greeted", "payload": {"name": name, "text": text}}
print("FLOW_RESULT " + json.dumps({"status": "completed", "message": text, "next": [greeted]}))

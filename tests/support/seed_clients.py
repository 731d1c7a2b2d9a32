"""The requests that the Python clients of bubbaloop made in spring 2025, one class for each of them, and
what they read of the replies. They know nothing of flowrun."""

import json
import urllib.request


class _Client:
    """host: as those clients were given it, "0.0.0.0" by default."""

    def __init__(self, port, host="0.0.0.0"):
        self.base = f"http://{host}:{port}/api/v0"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path, **headers):
        request = urllib.request.Request(self.base + path, headers=headers)
        with self._opener.open(request, timeout=240) as reply:
            return reply.read(), reply.headers["content-type"]

    def get_json(self, path, **headers):
        return json.loads(self.get(path, **headers)[0])

    def post(self, path, body):
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            self.base + path, data, {"Content-Type": "application/json"}, method="POST"
        )
        with self._opener.open(request, timeout=240) as reply:
            return json.loads(reply.read())


class InferenceClient(_Client):
    """python-inference: polls images and results, and sets the prompt."""

    def poll(self):
        """(time, JPEG) and (time, prompt, answer)."""
        image = self.get_json("/inference/image")["Success"]
        result = self.get_json("/inference/result")["Success"]
        assert image["image"]["encoding"] == "jpeg"
        return (
            (image["timestamp_nanos"], bytes(image["image"]["data"])),
            (result["timestamp_nanos"], result["prompt"], result["response"]),
        )

    def documented_result(self):
        return self.get_json("/inference/results")["Success"]["response"]

    def prompt(self, text):
        return self.post("/inference/settings", {"prompt": text})["success"]

    def pipelines(self):
        return {it["id"]: it["status"] for it in self.get_json("/pipeline/list")}

    def stop(self, name):
        return self.post("/pipeline/stop", {"pipeline_id": name})["message"]


class StreamClient(_Client):
    """python-stream: polls the images of one channel, as of the inference pipeline."""

    def poll(self, channel=0):
        image = self.get_json(f"/inference/image/{channel}")["Success"]
        return image["timestamp_nanos"], bytes(image["image"]["data"])


class StreamingClient(_Client):
    """python-streaming: images of the streaming pipeline, as JSON and raw, and results by channel."""

    def poll_json(self, channel=0):
        image = self.get_json(f"/streaming/image/{channel}?format=json")["Success"]
        assert image["encoding"] == "jpeg"
        return image["stamp_ns"], image["channel_id"], bytes(image["data"])

    def poll_oldest(self):
        return bytes(
            self.get_json("/streaming/image", Accept="application/json")["Success"]["data"]
        )

    def poll_raw(self, channel=0):
        data, kind = self.get(f"/streaming/image/{channel}")
        assert kind == "image/jpeg"
        return data

    def result(self, channel=0):
        result = self.get_json(f"/inference/result/{channel}")["Success"]
        return result["stamp_ns"], result["channel_id"], result["prompt"], result["response"]


class DetectionsClient(_Client):
    """Of the time of detections: boxes by their centre, and recording by command."""

    def poll(self):
        found = self.get_json("/inference/detections?latest=1")["Success"]
        keys = ("x", "y", "width", "height", "confidence", "class", "class_id", "tracker_id")
        return [tuple(it[key] for key in keys) for it in found["detections"]]

    def record(self, command):
        return self.post("/recording/command", {"command": command})["success"]

    def machine(self):
        return self.get_json("/stats/whoami")["hostname"]

"""A stand-in for `docker`: Compose and containers simulated from JSON files, with faults made on purpose.

Called as `gitops_docker.py WORLD ARGS…`. In the folder WORLD: `docker.json` (containers and images),
`calls.log` (one line for each call), `faults.json` (what goes wrong, and when). Compose files are JSON,
which is YAML too. A service's environment variable MODE says how it behaves once it is up: ok, bad, crash,
flap, slow, once, once-bad, upfail.
"""

import fcntl
import json
import os
import re
import signal
import sys
import time
import zlib

KEYS = ("image", "build", "environment", "volumes", "env_file", "depends_on", "labels", "restart", "deploy")
KEYS += (
    "privileged",
    "pid",
    "ipc",
    "network_mode",
    "cap_add",
    "devices",
    "security_opt",
    "provider",
    "post_start",
    "secrets",
)


def sha(*parts):
    """An identity by content; hashlib would cost a third of this script's start."""
    data = "\0".join(parts).encode(errors="surrogateescape")
    return f"{zlib.crc32(data):08x}{zlib.adler32(data):08x}{zlib.crc32(data[::-1]):08x}"


class daemon:
    """The daemon's memory, read and written under a lock."""

    def __init__(self, world):
        self.path = os.path.join(world, "docker.json")
        self.lock = open(os.path.join(world, "docker.lock"), "w")  # noqa: SIM115 - closed by __exit__

    def __enter__(self):
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            with open(self.path) as file:
                self.data = json.load(file)
        except FileNotFoundError:
            self.data = {"containers": {}, "images": {}, "serial": 0}
        return self.data

    def __exit__(self, *_):
        with open(self.path + ".new", "w") as file:
            json.dump(self.data, file)
        os.replace(self.path + ".new", self.path)
        self.lock.close()


def faults(world, words, when):
    """Apply the first fault that matches the call at this moment."""
    path = os.path.join(world, "faults.json")
    try:
        with open(path) as file:
            listed = json.load(file)
    except FileNotFoundError:
        return
    for fault in listed:
        if fault["match"] in words and fault["when"] == when and fault.get("times", 1) > 0:
            if fault.get("skip", 0) > 0:
                fault["skip"] -= 1
                act = None
            else:
                fault["times"] = fault.get("times", 1) - 1
                act = fault["do"]
            if all(f.get("times", 1) < 1 for f in listed):
                os.unlink(path)
            else:
                with open(path + ".new", "w") as file:
                    json.dump(listed, file)
                os.replace(path + ".new", path)
            if act == "kill":
                os.kill(os.getppid(), signal.SIGKILL)
                os._exit(137)
            if act == "orphan":  # the agent dies, this call lives on until the test lets it go
                os.kill(os.getppid(), signal.SIGKILL)
                wait_for(os.path.join(world, "go"))
            if act == "hang":
                open(os.path.join(world, "hanging"), "w").close()
                wait_for(os.path.join(world, "go"))
            if act == "edit":
                with open(fault["path"], "a") as file:
                    file.write("a user's line\n")
            if act == "fail":
                sys.stderr.write(fault.get("message", "injected failure") + "\n")
                sys.exit(1)
            return


def wait_for(path):
    deadline = time.monotonic() + 300
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)


class Compose:
    def __init__(self, world, args):
        self.world, self.options, self.rest = world, {}, []
        while args and args[0].startswith("--"):
            self.options.setdefault(args[0], []).append(args[1])
            args = args[2:]
        self.command, self.args = args[0], args[1:]
        self.project = self.options["--project-name"][0]
        self.directory = self.options["--project-directory"][0]

    def die(self, message):
        sys.stderr.write(message + "\n")
        sys.exit(15)

    def model(self, interpolate=True):
        values = {}
        for path in self.options.get("--env-file", []):
            if not os.path.isfile(path):
                self.die("couldn't find env file: " + path)
            with open(path) as file:
                values.update(line.strip().split("=", 1) for line in file if "=" in line)
        path = self.options["--file"][0]
        with open(path) as file:
            text = file.read()

        def put(match):
            name, _, message = match.group(1).partition(":?")
            if name not in values and message:
                self.die(f"required variable {name} is missing a value: {message}")
            return values.get(name, "")

        try:
            raw = json.loads(re.sub(r"\$\{([^}]*)\}", put, text) if interpolate else text)
        except ValueError as error:
            self.die("yaml: " + str(error))
        for name, body in raw["services"].items():
            for key in body:
                if key not in KEYS:
                    self.die(f"services.{name} additional properties '{key}' not allowed")
            if "env_file" in body and interpolate:
                source = os.path.join(self.directory, body.pop("env_file"))
                if not os.path.isfile(source):
                    self.die(f"env file {source} not found")
                with open(source) as file:
                    more = dict(line.strip().split("=", 1) for line in file if "=" in line)
                body.setdefault("environment", {}).update(more)
            body["volumes"] = [self.volume(v) for v in body.get("volumes", [])]
            if "secrets" in body:
                body["secrets"] = [{"source": one} for one in body["secrets"]]
            if "build" in body:
                local = "://" not in body["build"]
                context = os.path.normpath(os.path.join(self.directory, body["build"])) if local else body["build"]
                body["build"] = {"context": context, "dockerfile": "Dockerfile"}
        for one in raw.get("secrets", {}).values():
            one["file"] = os.path.normpath(os.path.join(self.directory, one["file"]))
        return {"name": self.project, "networks": {"default": {"name": self.project + "_default"}}, **raw}

    def volume(self, text):
        source, target, *mode = text.split(":")
        if source.startswith((".", "/")):
            place = os.path.normpath(os.path.join(self.directory, source))
            return {
                "type": "bind",
                "source": place,
                "target": target,
                **({"read_only": True} if mode == ["ro"] else {}),
            }
        return {"type": "volume", "source": source, "target": target}

    def image(self, name, body):
        return body.get("image") or self.project + "-" + name

    def run(self):
        getattr(self, "do_" + self.command)()

    def do_config(self):
        print(json.dumps(self.model(interpolate="--no-interpolate" not in self.args)))

    def do_build(self):
        services = self.model()["services"]
        with daemon(self.world) as data:
            for name in [a for a in self.args if not a.startswith("-")]:
                content = []
                for folder, _, files in sorted(os.walk(services[name]["build"]["context"])):
                    for file in sorted(files):
                        with open(os.path.join(folder, file), errors="replace") as opened:
                            content.append(file + opened.read())
                data["images"][self.image(name, services[name])] = "sha256:" + sha(*content)

    def do_pull(self):
        services = self.model()["services"]
        with daemon(self.world) as data:
            for name in [a for a in self.args if not a.startswith("-")]:
                data["images"][services[name]["image"]] = "sha256:" + sha(services[name]["image"])

    def do_up(self):
        model = self.model()
        services = model["services"]
        names = [a for a in self.args if not a.startswith("-")] or sorted(services)
        with daemon(self.world) as data:
            there = data.get("volumes", [])
        for volume in model.get("volumes", {}).values():
            if volume.get("external") and volume["name"] not in there:
                self.die(f'external volume "{volume["name"]}" not found')
        for number, name in enumerate(names):
            if number == len(names) // 2:
                faults(self.world, "compose up", "middle")
            self.up(name, services[name])

    def up(self, name, body):
        mode = body.get("environment", {}).get("MODE", "ok")
        if body.get("deploy", {}).get("replicas") == 0:
            return
        if mode == "upfail":
            sys.stderr.write("Error response from daemon: driver failed programming external connectivity\n")
            sys.exit(1)
        with daemon(self.world) as data:
            data["serial"] += 1
            image = self.image(name, body)
            if image not in data["images"]:
                sys.stderr.write(f"No such image: {image}\n")
                sys.exit(1)
            mounted = {}
            for volume in body["volumes"]:
                if volume["type"] == "bind" and os.path.isdir(volume["source"]):
                    for file in sorted(os.listdir(volume["source"])):
                        with open(os.path.join(volume["source"], file), errors="replace") as opened:
                            mounted[file] = opened.read()
            ended = {"crash": 1, "once": 0, "once-bad": 3}.get(mode)
            data["containers"][name] = {
                "id": sha(str(data["serial"]))[:24],
                "project": self.project,
                "image": image,
                "image_id": data["images"][image],
                "status": "running" if ended is None else "exited",
                "exit_code": ended or 0,
                "mode": mode,
                "looks": 0,
                "restarts": 0,
                "started": data["serial"],
                "policy": body.get("restart", "unless-stopped"),
                "rev": body.get("environment", {}).get("REV"),
                "hash": sha(json.dumps(body, sort_keys=True)),
                "mounted": mounted,
            }


def health(container):
    mode, looks = container["mode"], container["looks"]
    if container["status"] != "running":
        return None
    if mode == "flap":
        return "healthy" if looks % 2 else "unhealthy"
    if mode == "slow":
        return "healthy" if looks > 2 else "starting"
    return "unhealthy" if mode == "bad" else "healthy"


def inspect(data, ids):
    found = []
    for name, c in data["containers"].items():
        if c["id"] not in ids:
            continue
        c["looks"] += 1
        if c["mode"] == "flap":
            c["restarts"] += 1
        state = {
            "Status": c["status"],
            "ExitCode": c["exit_code"],
            "OOMKilled": False,
            "StartedAt": str(c["started"]),
        }
        if health(c):
            state["Health"] = {"Status": health(c)}
        labels = {
            "com.docker.compose.project": c["project"],
            "com.docker.compose.service": c.get("as", name),
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.config-hash": c["hash"],
        }
        found.append(
            {
                "Id": c["id"],
                "State": state,
                "Image": c["image_id"],
                "RestartCount": c["restarts"],
                "HostConfig": {"RestartPolicy": {"Name": c["policy"]}},
                "Config": {"Image": c["image"], "Labels": labels},
            }
        )
    return found


def known_ids(data):
    """Images that exist: those with a name, and those that a container runs."""
    return {*data["images"].values(), *(c["image_id"] for c in data["containers"].values())}


def main():
    world, args = sys.argv[1], sys.argv[2:]
    words = " ".join(args)
    if args[0] == "compose":
        compose = Compose(world, args[1:])
        words = "compose " + compose.command + " " + " ".join(compose.args)
    with open(os.path.join(world, "calls.log"), "a") as log:
        log.write(words + "\n")
    faults(world, words, "before")
    if args[0] == "compose":
        compose.run()
    elif args[0] == "ps":
        project = next(a.rsplit("=", 1)[1] for a in args if "project=" in a)
        service = [a.rsplit("=", 1)[1] for a in args if "service=" in a]
        with daemon(world) as data:
            for name, c in data["containers"].items():
                if c["project"] == project and service in ([], [name]):
                    print(c["id"])
    elif args[0] == "inspect":
        with daemon(world) as data:
            found = inspect(data, args[1:])
        print(json.dumps(found))
        if len(found) < len(args) - 1:
            sys.exit(1)
    elif args[:2] == ["image", "inspect"]:
        with daemon(world) as data:
            image = data["images"].get(args[-1])
        if image is None:
            sys.exit(1)
        print(image)
    elif args[0] == "tag":
        with daemon(world) as data:
            known = data["images"].get(args[1]) or (args[1] if args[1] in known_ids(data) else None)
            if known is None:
                sys.exit(1)
            data["images"][args[2]] = known
    elif args[:2] == ["volume", "create"]:
        with daemon(world) as data:
            data.setdefault("volumes", []).append(args[2])
    elif args[0] in ("stop", "rm"):
        with daemon(world) as data:
            for name in [n for n, c in data["containers"].items() if c["id"] in args]:
                if args[0] == "stop":
                    data["containers"][name].update(status="exited", exit_code=0)
                else:
                    del data["containers"][name]
    else:
        sys.stderr.write(f"the stand-in does not know: docker {words}\n")
        sys.exit(64)
    faults(world, words, "after")


if __name__ == "__main__":
    main()

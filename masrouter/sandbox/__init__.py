"""Judges programs that nobody trusts, such as those that models write, against a problem's test.

Three processes, none of which shares memory, a uid (where one can be had) or a file with another:

    caller ── starts ──► zygote ── forks, per program ──► supervisor ──┬─► judge: runs the test
       ▲                                                      │        │      │ ▲  tagged JSON
       └───────────── verdict, untrusted JSON ◄───────────────┘        └─► worker: runs the program

The caller runs neither text. The judge has the test and never loads the program: the test's
`candidate` is a proxy, each call of which goes to the worker; replies are tagged JSON, capped in
bytes, depth and size and rebuilt as plain builtins. So a program cannot lie with `__eq__`, patch
`check` or a builtin, walk frames, or print its way to a pass: there is nothing of the test in its
process. Only the judge can write a verdict.

How judge and worker are contained (`probe` says which means work here; none is a `SandboxError`,
and nothing ever runs uncontained):

- bubblewrap, where it works: own mount, pid, network, ipc and host name namespaces (and user,
  unless root), Python's own files and nothing else in sight, all read-only; and the next point too;
- Landlock and seccomp otherwise: only the standard library can be read, nothing can be written.
  A list of allowed system calls: no process can be made (threads can), no other program be started,
  no signal be sent, no socket be opened, no file be written, chmodded or removed, no other process
  be traced or have its limits changed. So nothing can outlive the kill of the two processes;
- as root: every process has a uid and gid of its own, and no supplementary group;
- rlimits for memory, CPU, threads, files; an empty environment; no inherited descriptor but
  its channels; standard output goes nowhere. The wall limit covers the whole judgement.

What this does not protect against:

- faults of the kernel, bubblewrap or the CPU; side channels of time and cache between processes;
- a program that recognises the test's inputs and has the answers by heart, or that guesses;
- a test that compares carelessly: NaN, `assert candidate(x)`, a helper that the test takes from the
  program itself (give `helpers` to `judge` so that they come from the problem);
- without root, Landlock leaves the worker under the caller's uid: only the rules above separate
  them. Under Landlock the names, sizes and owners of files can be learnt (not what is in them);
- load: a program may use one CPU per thread and its memory limit until its time ends, and judge
  and worker have that limit each. The sum over programs at once is the caller's to bound.

Programs have the standard library only (no site-packages), no writable folder, no subprocesses,
and an empty standard input. An argument that they change in place is changed in the test too, if it
is a list, dict, set, bytearray or deque; identity and aliases do not survive the crossing.
"""

from masrouter.sandbox.containment import Containment, Host
from masrouter.sandbox.limits import Limits, Reason, Verdict
from masrouter.sandbox.probing import probe
from masrouter.sandbox.sandbox import Sandbox

__all__ = ["Containment", "Host", "Limits", "Reason", "Sandbox", "Verdict", "probe"]

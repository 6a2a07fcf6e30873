"""The CNI plugin `muslin-cni`: containers of any runtime that speaks CNI become pods.

    runtime --env, JSON--> muslin-cni --control socket--> daemon     addresses, links, ports, limits
            <--JSON, code--            <----------------

The plugin decides nothing about the network. It reads what the runtime says (`request`), asks the
daemon (`client`), and says the answer in the words of the runtime's version (`spec`). It lives for
a few milliseconds, once per container, twenty at a time on a busy node, so what counts is the
processor time of its start: it imports builtin modules of the interpreter and this package, nothing
else (`text` says what that saves). Annotations use names that are only imported for the type
checker; that is why the modules set `TYPE_CHECKING` themselves instead of importing `typing`.

What was left open by the specification, and how it is decided here:

- ADD of an attachment that is there is an error (103), as the specification wants it. A runtime
  whose ADD was cut off calls DEL first.
- DEL never fails for what is missing. While no daemon runs it leaves a note in the state folder
  (`notes`), removes the host's end of the link if the runtime says its name, and succeeds: the next
  daemon frees the address before it gives out another one. It fails with "try again later" only
  where the note cannot be written, or a running daemon does not answer.
- GC without a list is refused, because an empty list takes everything away; `null` is an empty
  list, as libcni writes one. Without a daemon it is "try again later": a list that is kept grows
  old.
- STATUS is 51 without a daemon: packets to other nodes need it.
- `portMappings` are the chained portmap's affair. Where a runtime hands them to this plugin, by its
  `capabilities`, the daemon opens the ports itself.

References:
    CNI specification 1.1.0 (and 1.0.0, 0.4.0, 0.3.1), https://www.cni.dev/docs/spec/. Its
    CONVENTIONS.md for `runtimeConfig`, `args` and `CNI_ARGS`.
"""

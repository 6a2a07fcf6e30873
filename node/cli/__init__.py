"""The commands people type. One module per group of verbs, loaded when one of them is used.

    app         the `muslin` command: finds the verb, prints errors in one line, picks the exit code
    context     what every verb shares: the state folder, the control client, clauses of an error
    progress    says on a terminal what is being waited for
    output      tables, JSON, YAML and names; the only place that formats answers
    columns     what `get` shows of each kind

stdout carries the answer and nothing else. Exit 0 done, 1 failed, 2 wrong usage.
"""

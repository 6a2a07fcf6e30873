#!/bin/sh
# What a container of deploy/Dockerfile does: becomes a node once, then runs its daemon.
#
#     node.sh           found a cluster if MEMBERS says for whom, else join with a token of theirs
#     node.sh check     whether everything is there that the daemon needs
#     node.sh install   compile, and put the command `muslin` where shells find it
#
# Tokens change hands through a volume. Each is good for one node and for one hour.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
python=$here/.venv/bin/python
[ -x "$python" ] || python=python3
tokens=/run/muslin-tokens
name=$(hostname)

check() {
  command -v ip nft ping >/dev/null &&
    "$python" -c 'import click, cryptography, msgpack, numpy, pyroute2, pytun, uvloop' 2>/dev/null
}

install() {
  "$python" -m compileall -q "$here/node" "$here/overlay" # each command would do it again
  cat >/usr/local/bin/muslin <<END
#!/bin/sh
PYTHONPATH=$here\${PYTHONPATH:+:\$PYTHONPATH} exec $python -m node "\$@"
END
  chmod 755 /usr/local/bin/muslin
}

# Founds the cluster, and makes the tokens as soon as there is a daemon to make them.
found() {
  muslin init --name "$name"
  for member in $MEMBERS; do
    (
      umask 077
      until muslin token >"$tokens/.$member" 2>/dev/null; do sleep 1; done
      mv "$tokens/.$member" "$tokens/$member"
    ) &
  done
}

join() {
  until [ -s "$tokens/$name" ]; do sleep 0.5; done
  until muslin join - --name "$name" <"$tokens/$name"; do sleep 1; done
  rm -f "$tokens/$name"
}

# A pod of the node's own, so that there is something to reach. It is there already if only the
# daemon was restarted.
pod() {
  until muslin pod add "$name-pod1" || muslin exec "$name-pod1" -- true; do sleep 1; done 2>/dev/null
}

case "${1:-run}" in
  check) check ;;
  install) install ;;
  run)
    # The daemon sets sysctls of its links; engines mount them read-only.
    mount -o remount,rw /proc/sys
    rm -f /run/netns/muslin-* # namespaces that ended with the container; the daemon frees the pods
    [ -e /var/lib/muslin/identity.key ] || if [ -n "${MEMBERS:-}" ]; then found; else join; fi
    pod &
    exec muslin up
    ;;
  *) exec muslin "$@" ;;
esac

# Sourced by the scripts beside it: where the clone and the cache are, and how a script gives up.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The cache holds what is fetched and compiled, outside the clone: TAMIZ_CACHE, else what the clone's `.cache` link
# points to, else ${XDG_CACHE_HOME:-~/.cache}/tamiz.
if [ -n "${TAMIZ_CACHE:-}" ]; then
  mkdir -p "$TAMIZ_CACHE" && cache=$(cd "$TAMIZ_CACHE" && pwd)
elif [ -d "$root/.cache/" ]; then
  cache=$(cd -P "$root/.cache" && pwd)
else
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/tamiz
fi

# One sentence on stderr, after the script's own name: what failed and what to do.
die() { echo "${0##*/}: $*" >&2; exit 1; }

# Prints the calling script's own header comment, and leaves as a wrong call does.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2; }

have() { command -v "$1" >/dev/null 2>&1; }

# `lock NAME`: from here on one process at a time in this cache; the lock ends with the script, however it ends.
lock() {
  mkdir -p "$cache"
  exec 9>"$cache/.$1.lock"
  flock -n 9 || { echo "${0##*/}: waiting for another run" >&2; flock 9; }
}

# `point LINK TARGET`: the link points to the target in one step; there is no moment without a link.
point() { ln -sfn "$2" "$1.$$" && mv -fT "$1.$$" "$1"; }

"""A program of its own: which of these roots cannot be served, for a user. Run by config.roots.

    python -I -S probe.py UID GID GROUPS ROOT...        prints "NUMBER PROBLEM" of the first bad one

It takes the rights that workers and helpers will have, since root can read everything, and it is a
process of its own, since a file system that hangs must not hold up the master.
"""

import os
import sys


def main() -> None:
    """Take the rights, look at each root, name the first that cannot be used."""
    uid, gid, groups, *roots = sys.argv[1:]
    if os.geteuid() == 0:
        os.setgroups([int(group) for group in groups.split(",") if group])
        os.setgid(int(gid))
        os.setuid(int(uid))
    for number, root in enumerate(roots):
        problem = find_problem(root)
        if problem:
            print(number, problem)
            return


def find_problem(root: str) -> str:
    """Why `root` cannot be served; "" when it can."""
    try:
        os.stat(root)
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno or 0).lower()}"
    if not os.path.isdir(root):
        return "is not a folder"
    return "" if os.access(root, os.R_OK | os.X_OK) else "cannot be read: permission denied"


if __name__ == "__main__":
    main()

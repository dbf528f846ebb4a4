/* left_alone.h: made by tools/make-header from ssa/cli/left_alone.py. */

#define LEFT_ALONE \
    "/usr/sbin/init\n" \
    "/usr/lib/systemd/*\n" \
    "/usr/bin/systemctl\n" \
    "/usr/bin/journalctl\n" \
    "/usr/sbin/agetty\n" \
    "/usr/bin/sh\n" \
    "/usr/bin/bash\n" \
    "/usr/bin/dash\n" \
    "/usr/bin/zsh\n" \
    "/usr/bin/fish\n" \
    "/usr/bin/busybox\n" \
    "/usr/bin/login\n" \
    "/usr/bin/su\n" \
    "/usr/bin/sudo\n" \
    "/usr/sbin/sshd\n" \
    "/usr/lib/openssh/*\n" \
    "/usr/libexec/openssh/*\n" \
    "/usr/bin/dpkg*\n" \
    "/usr/bin/apt*\n" \
    "/usr/lib/apt/*\n" \
    "/usr/bin/unattended-upgrade*\n" \
    "*/bin/ssad\n" \
    "*/bin/ssa\n" \


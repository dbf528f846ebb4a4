/*
 * kernel-xstate: lets a user-mode Linux older than 6.13 run on a processor with AMX; tools/kernel-run preloads it there.
 *
 * Such a kernel keeps 2696 bytes of extended registers for each process. The host takes registers back only if all
 * of them are there, and with AMX that is 11008 bytes: EFAULT, and the guest's first process dies. So add the rest,
 * as zeros: a process that has not asked for AMX has nothing in it.
 */
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

static char registers[65536];
static size_t size;

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(enum __ptrace_request, pid_t, void *, void *);
	struct iovec whole = { registers, sizeof registers };
	struct iovec *given;
	va_list arguments;
	pid_t pid;
	void *address, *data;

	va_start(arguments, request);
	pid = va_arg(arguments, pid_t);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "ptrace");

	if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
		return next(request, pid, address, data);
	if (!size) { /* as long as the host says */
		if (next(PTRACE_GETREGSET, pid, address, &whole) < 0)
			return -1;
		size = whole.iov_len;
		memset(registers, 0, sizeof registers);
	}
	given = data;
	if (given->iov_len >= size)
		return next(request, pid, address, data);
	memcpy(registers, given->iov_base, given->iov_len); /* the rest has stayed zero */
	whole.iov_len = size;
	return next(request, pid, address, &whole);
}

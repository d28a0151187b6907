#define _GNU_SOURCE
#include "calls.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct call calls[] = {
	{SYS_open, "open", false, false},
	{SYS_creat, "creat", false, false},
	{SYS_stat, "stat", false, false},
	{SYS_lstat, "lstat", false, false},
	{SYS_access, "access", false, false},
	{SYS_readlink, "readlink", false, false},
	{SYS_statfs, "statfs", false, false},
	{SYS_truncate, "truncate", false, false},
	{SYS_openat, "openat", true, false},
	{437, "openat2", true, true},
	{SYS_newfstatat, "newfstatat", true, false},
	{332, "statx", true, false},
	{SYS_faccessat, "faccessat", true, false},
	{439, "faccessat2", true, false},
	{SYS_readlinkat, "readlinkat", true, false},
};
enum { CALLS = sizeof calls / sizeof *calls };

const struct call *call_of(unsigned long long number)
{
	for (size_t i = 0; i < CALLS; i++)
		if (calls[i].number == (int)number) /* as the kernel: the upper half does not count */
			return &calls[i];
	return NULL;
}

int install_filter(void)
{
	struct sock_filter code[4 + CALLS + 2];
	size_t length = 0;
	code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, CALLS + 1);
	code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < CALLS; i++)
		code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i].number,
							       (uint8_t)(CALLS - i), 0);
	code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	struct sock_fprog filter = {(unsigned short)length, code};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0)
		return 0;
	if (errno != EACCES || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) /* without CAP_SYS_ADMIN */
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

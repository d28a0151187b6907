#define _GNU_SOURCE
#include "paths.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096 };

/* Not in musl's headers: linux/openat2.h. */
enum { RESOLVE_BENEATH_ = 0x08, RESOLVE_IN_ROOT_ = 0x10, RESOLVE_OFFSET = 16 };

static bool roots; /* /proc has the root folder of each process; early gVisor's has not */

bool paths_begin(void)
{
	char self[16] = "";
	if (readlink("/proc/self", self, sizeof self - 1) < 0 || atoi(self) != getpid())
		return false;
	roots = access("/proc/self/root", F_OK) == 0;
	return true;
}

/* Reads a string; false if it is not readable or longer than a path may be. */
static bool read_path(pid_t tid, uint64_t address, char path[PATH_SIZE])
{
	size_t length = 0;
	while (length < PATH_SIZE) {
		size_t part = PAGE - (address + length) % PAGE; /* the next page may not be there */
		if (part > PATH_SIZE - length)
			part = PATH_SIZE - length;
		struct iovec here = {path + length, part}, there = {(void *)(uintptr_t)(address + length), part};
		ssize_t got = process_vm_readv(tid, &here, 1, &there, 1, 0);
		if (got <= 0)
			return false;
		if (memchr(path + length, '\0', (size_t)got))
			return true;
		length += (size_t)got;
	}
	return false;
}

static bool exists(const char *path)
{
	struct stat status;
	return fstatat(AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

/* The place in /proc of what a path starts from. */
static void base_name(const struct thread *thread, const char *path, int descriptor, char *name, size_t size)
{
	if (path[0] == '/' && !roots)
		name[0] = '\0';
	else if (path[0] == '/')
		snprintf(name, size, "/proc/%d/root", thread->tid);
	else if (descriptor == AT_FDCWD)
		snprintf(name, size, "/proc/%d/cwd", thread->tid);
	else
		snprintf(name, size, "/proc/%d/fd/%d", thread->tid, descriptor);
}

static bool is_confined(const struct thread *thread)
{
	uint64_t resolve = 0;
	if (!thread->call->how)
		return false;
	struct iovec here = {&resolve, sizeof resolve};
	struct iovec there = {(void *)(uintptr_t)(thread->asked.rdx + RESOLVE_OFFSET), sizeof resolve};
	if (process_vm_readv(thread->tid, &here, 1, &there, 1, 0) != sizeof resolve)
		return true;
	return resolve & (RESOLVE_BENEATH_ | RESOLVE_IN_ROOT_);
}

/* A path that ends so leads to a folder or nowhere, and through a symbolic link. */
static bool must_be_folder(const char *path)
{
	size_t length = strlen(path);
	return path[length - 1] == '/' || (length > 1 && strcmp(path + length - 2, "/.") == 0);
}

bool replace(const struct thread *thread, char replacement[PATH_SIZE])
{
	char path[PATH_SIZE], folder[PATH_SIZE] = "", normal[PATH_SIZE], base[64], root[64], at[PATH_SIZE + 64];
	const struct user_regs_struct *regs = &thread->asked;
	if (!read_path(thread->tid, thread->call->folder ? regs->rsi : regs->rdi, path) || !path[0])
		return false;
	base_name(thread, path, thread->call->folder ? (int)regs->rdi : AT_FDCWD, base, sizeof base);
	base_name(thread, "/", AT_FDCWD, root, sizeof root);
	if (rules_match_last(path, replacement)) {
		snprintf(at, sizeof at, "%s/%s", base, replacement);
		return exists(at);
	}
	if (path[0] != '/') {
		ssize_t length = readlink(base, folder, sizeof folder - 1);
		/* After chroot(2) we and the program call its folders by other names. */
		if (length <= 0 || folder[0] != '/' || (roots && readlink(root, at, sizeof at) != 1))
			return false;
		folder[length] = '\0';
	}
	if (!rules_normalise(folder, path, normal) || !rules_match(normal, replacement) || is_confined(thread))
		return false;
	if (must_be_folder(path)) {
		if (strlen(replacement) + 1 >= PATH_SIZE)
			return false;
		strcat(replacement, "/");
	}
	snprintf(at, sizeof at, "%s%s", root, replacement);
	return exists(at);
}

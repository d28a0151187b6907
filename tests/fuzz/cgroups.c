/* What userns reads of the kernel: a list of mounts, a NUL byte, a list of cgroups. */
#define _GNU_SOURCE
#include <mntent.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static FILE *open_input(const char *name);
#define fopen(name, mode) open_input(name)
#define setmntent(name, mode) open_input(name)
#define mkdir(...) 0
#define rmdir(...) 0
#define mount(...) 0
#include "../../native/userns/cgroups.c"
#undef fopen

#include "check.h"

static char *mounts, *groups;

static FILE *open_input(const char *name)
{
	char *text = strcmp(name, "/proc/self/mounts") == 0 ? mounts : groups;
	return *text ? fmemopen(text, strlen(text), "r") : fopen("/dev/null", "re");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hierarchy all[HIERARCHIES];
	size_t second = second_of(data, size);
	mounts = string_of(data, second);
	groups = string_of(data + second, size - second);
	int count = find("/root", all);
	check(count >= 0 && count <= HIERARCHIES);
	for (int one = 0; one < count; one++) {
		check(strncmp(all[one].path, "/root/sys/fs/cgroup", 19) == 0 && strncmp(all[one].type, "cgroup", 6) == 0);
		for (int other = 0; other < one; other++)
			check(strcmp(all[one].path, all[other].path) != 0);
	}
	check(cgroups_serve("/") == (count > 0));
	free(mounts);
	free(groups);
	return 0;
}

#define _GNU_SOURCE
#include "cgroups.h"

#include <errno.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"

enum { FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC };
enum { HIERARCHIES = 32 };

/* A hierarchy that the kubelet makes cgroups in. */
struct hierarchy {
	char path[PATH_MAX];
	char type[16];
	char controllers[256];
	bool own; /* a new mount of it has nothing above the cgroup that this process is in */
};

/* How much of a root is before the paths below it. */
static size_t length_of(const char *root)
{
	return strcmp(root, "/") == 0 ? 0 : strlen(root);
}

static bool can_make(const char *path)
{
	char made[PATH_MAX + 32];
	snprintf(made, sizeof made, "%s/sandkube-trial-%ld", path, (long)getpid());
	return mkdir(made, 0755) == 0 && rmdir(made) == 0;
}

/* Whether a mount has an option of this name; hasmntopt(3) of musl takes cpu for cpuset. */
static bool has_option(const struct mntent *mounted, const char *name)
{
	char options[4096], *rest = options, *each;
	snprintf(options, sizeof options, "%s", mounted->mnt_opts);
	while ((each = strsep(&rest, ",")))
		if (strcmp(each, name) == 0)
			return true;
	return false;
}

/* cgroups(7), /proc/PID/cgroup: finds the controllers of a mounted hierarchy, as mount(2) wants them, and whose root it has. */
static void identify(const struct mntent *mounted, struct hierarchy *one)
{
	char line[PATH_MAX];
	bool second = strcmp(mounted->mnt_type, "cgroup2") == 0;
	FILE *file = fopen("/proc/self/cgroup", "re");
	one->controllers[0] = '\0';
	one->own = false;
	while (file && fgets(line, sizeof line, file)) {
		char *rest = line, first[256];
		strsep(&rest, ":");
		char *list = strsep(&rest, ":");
		if (!list || !rest)
			continue;
		snprintf(first, sizeof first, "%.*s", (int)strcspn(list, ","), list);
		if (second ? *list != '\0' : *list == '\0' || !has_option(mounted, first))
			continue;
		snprintf(one->controllers, sizeof one->controllers, "%s", list);
		one->own = strcmp(rest, "/\n") == 0;
	}
	if (file)
		fclose(file);
}

/*
 * Lists what is mounted below ROOT/sys/fs/cgroup, which has the same mounts as /sys/fs/cgroup: gVisor's list of mounts does
 * not escape a space in ROOT. The last mount on a folder counts.
 */
static int find(const char *root, struct hierarchy *all)
{
	static const char top[] = "/sys/fs/cgroup";
	size_t length = sizeof top - 1;
	struct mntent *mounted;
	int count = 0;
	FILE *file = setmntent("/proc/self/mounts", "re");
	if (!file)
		fail("/proc/self/mounts");
	while ((mounted = getmntent(file)) && count < HIERARCHIES) {
		char path[PATH_MAX];
		bool version_1 = strcmp(mounted->mnt_type, "cgroup") == 0, version_2 = strcmp(mounted->mnt_type, "cgroup2") == 0;
		if (strncmp(mounted->mnt_dir, top, length) != 0 || (!version_1 && !version_2))
			continue;
		const char *below = mounted->mnt_dir + length;
		if (*below && *below != '/')
			continue;
		snprintf(path, sizeof path, "%.*s%s", (int)length_of(root), root, mounted->mnt_dir);
		struct hierarchy *one = all + count++;
		for (struct hierarchy *other = all; other < all + count - 1; other++)
			if (strcmp(other->path, path) == 0) {
				one = other; /* which this one covers */
				count--;
				break;
			}
		snprintf(one->path, sizeof one->path, "%s", path);
		snprintf(one->type, sizeof one->type, "%s", mounted->mnt_type);
		identify(mounted, one);
	}
	endmntent(file);
	return count;
}

bool cgroups_serve(const char *root)
{
	struct hierarchy all[HIERARCHIES];
	int count = find(root, all);
	for (int each = 0; each < count; each++)
		if (!can_make(all[each].path))
			return false;
	return count > 0;
}

/* A mount of the same file system is refused right on the one that is there, so one of another lies between. */
static bool mount_anew(const struct hierarchy *one)
{
	return one->own && mount("tmpfs", one->path, "tmpfs", FLAGS, NULL) == 0 &&
	       mount(one->type, one->path, one->type, FLAGS, one->controllers) == 0 && can_make(one->path);
}

void make_cgroups_serve(const char *root)
{
	struct hierarchy all[HIERARCHIES];
	int count = find(root, all);
	errno = ENOENT;
	if (count == 0)
		fail("no cgroups in /sys/fs/cgroup");
	for (struct hierarchy *one = all; one < all + count; one++) {
		if (can_make(one->path))
			continue;
		int error = errno;
		if (mount(NULL, one->path, NULL, MS_REMOUNT | MS_BIND | FLAGS, NULL) == 0 && can_make(one->path))
			continue;
		if (mount_anew(one))
			continue;
		errno = error;
		fail("no cgroup can be made in %s", one->path + length_of(root));
	}
}

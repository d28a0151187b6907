/* What programs rarely do, and what the interceptor once did not bear. */
#include "target.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 16, ENOUGH = 2000, FEW = ENOUGH / 50 };

static int open_at(const char *name)
{
	char path[PAGE];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	return (int)syscall(SYS_open, path, O_RDONLY);
}

static atomic_uint made[THREADS];
static atomic_bool enough;
static pthread_barrier_t together;

static void *call_often(void *count)
{
	atomic_uint *calls = count;
	pthread_barrier_wait(&together);
	while (!enough) {
		syscall(SYS_access, "/nosuch", F_OK);
		if (++*calls == ENOUGH)
			enough = true;
	}
	return NULL;
}

/* Threads that do nothing but stop: each gets its turn. */
void case_turns(void)
{
	pthread_t all[THREADS];
	pthread_barrier_init(&together, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&all[i], NULL, call_often, &made[i]) != 0)
			wrong("pthread_create");
	for (int i = 0; i < THREADS; i++)
		pthread_join(all[i], NULL);
	for (int i = 0; i < THREADS; i++)
		if (made[i] < FEW)
			wrong("thread %d made %u calls while another one made %d", i, made[i], ENOUGH);
}

static pid_t busy_child(void)
{
	pid_t pid = fork();
	while (pid == 0)
		syscall(SYS_access, "/nosuch", F_OK);
	return pid;
}

static void storm(void)
{
	pid_t busy[] = {busy_child(), busy_child()};
	for (int i = 0; i < 20; i++) {
		pid_t pids[8];
		for (int j = 0; j < 8; j++) {
			if ((pids[j] = fork()) == 0)
				_exit(0);
			if (j % 2)
				kill(pids[j], SIGKILL);
		}
		for (int j = 0; j < 8; j++)
			waitpid(pids[j], NULL, 0);
	}
	for (int i = 0; i < 2; i++) {
		kill(busy[i], SIGKILL);
		waitpid(busy[i], NULL, 0);
	}
}

/*
 * Children that end at once, or are killed before they begin, while others keep the tracer busy: it may hear of the end
 * of one before it hears of its fork. Not from the first process: waitpid(2) tells of the tracer's own child first.
 */
void case_storm(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		storm();
		_exit(0);
	}
	await(pid, "the storm");
}

static void *execute_after(void *turns)
{
	char *words[] = {(char *)self, "open", (char *)folder, NULL};
	for (volatile unsigned i = 0; i < (unsigned)(uintptr_t)turns; i++)
		;
	execv(self, words);
	wrong("execv");
}

/* A thread replaces the process while the first one is anywhere in a redirected call. */
void case_replaced(void)
{
	for (unsigned i = 0; i < 200; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			pthread_t other;
			struct stat status;
			expect_prepared(named, "before another thread's exec");
			pthread_create(&other, NULL, execute_after, (void *)(uintptr_t)(i * 7919 % 300 * 100));
			for (;;)
				syscall(SYS_stat, named, &status);
		}
		await(pid, "after another thread's exec");
	}
}

/* The page that the interceptor has put the replacement into; with or without something before it. */
static char *interceptors_page(void)
{
	char line[512], access[5], replacement[PAGE];
	uintptr_t from, to;
	char *found = NULL;
	FILE *maps = fopen("/proc/self/maps", "r");
	snprintf(replacement, sizeof replacement, "%s/prepared/file", folder);
	while (maps && fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%lx-%lx %4s", &from, &to, access) != 3 || strncmp(access, "rw", 2) != 0)
			continue;
		if (strpbrk(line, "[/")) /* it has a name */
			continue;
		for (char *page = (char *)from; page < (char *)to; page += PAGE)
			if (strcmp(page, replacement) == 0 || strcmp(page + 16, replacement) == 0)
				found = page;
	}
	if (maps)
		fclose(maps);
	if (!found)
		wrong("the interceptor's page is nowhere");
	return found;
}

/* The page is not the program's, but its memory is: it may be unmapped, made read-only, or mapped over. */
void case_unmap(void)
{
	expect_prepared(named, "the first time");
	munmap(interceptors_page(), PAGE);
	for (int i = 0; i < 2; i++)
		expect_prepared(named, "after munmap");
	mprotect(interceptors_page(), PAGE, PROT_READ);
	for (int i = 0; i < 2; i++)
		expect_prepared(named, "after mprotect");
	char *page = interceptors_page();
	mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	memset(page, 'm', PAGE);
	for (int i = 0; i < 2; i++)
		expect_prepared(named, "after mmap");
	for (int i = 0; i < PAGE; i++)
		if (page[i] != 'm')
			wrong("memory that the program has mapped over the page was changed");
}

/* Calls of mmap(2) fail as if there were no such call. */
static void refuse_mmap(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof code / sizeof *code, code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
		wrong("seccomp");
}

/*
 * The first page is asked for where there is none to be had: the calls go on as they are, and others are not harmed.
 * gVisor does not ask the filters again about a call that was changed at its stop: there the page comes.
 */
void case_filter(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		refuse_mmap();
		for (int i = 0; i < 3; i++) {
			int file = (int)syscall(SYS_open, named, O_RDONLY);
			if (file >= 0 ? !holds(file, "prepared\n") : errno != ENOENT)
				wrong("open without a page");
		}
		_exit(0);
	}
	await(pid, "a program that refuses mmap");
	for (int i = 0; i < 3; i++)
		expect_prepared(named, "afterwards");
}

/* What follows the last name says that it must be a folder. */
void case_slash(void)
{
	struct stat status;
	char path[PAGE];
	const char *ends[] = {"/", "/.", "//", "/./"};
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "%s%s", named, ends[i]);
		if (syscall(SYS_open, path, O_RDONLY) >= 0)
			wrong("open %s", path);
		snprintf(path, sizeof path, "%s/named/folder-link%s", folder, ends[i]);
		if (syscall(SYS_lstat, path, &status) != 0 || !S_ISDIR(status.st_mode))
			wrong("lstat %s", path);
	}
	snprintf(path, sizeof path, "%s/named/folder-link", folder);
	if (syscall(SYS_lstat, path, &status) != 0 || !S_ISLNK(status.st_mode))
		wrong("lstat %s", path);
}

/* Linux since 5.12 leaves out the upper half of the number; others find no such call. */
void case_upper_half(void)
{
	long file;
	__asm__ volatile("syscall"
			 : "=a"(file)
			 : "a"(1L << 32 | SYS_open), "D"(named), "S"(O_RDONLY), "d"(0)
			 : "rcx", "r11", "memory");
	if (file != -ENOSYS && !holds((int)file, "prepared\n"))
		wrong("open gave %ld", file);
}

/* In another root the same paths are other files. */
void case_chroot(void)
{
	char path[PAGE];
	snprintf(path, sizeof path, "%s/root", folder);
	if (chroot(path) != 0 || chdir("/") != 0)
		wrong("chroot %s", path);
	if (!holds(open_at("named/file"), "plain\n"))
		wrong("a file that is prepared outside only");
	if (!holds(open_at("named/inside"), "prepared\n"))
		wrong("a file that is prepared inside");
	snprintf(path, sizeof path, "%s/named", folder);
	if (chdir(path) != 0 || !holds((int)syscall(SYS_open, "file", O_RDONLY), "plain\n"))
		wrong("a relative path inside");
}

/* The same in another mount namespace. */
void case_mount(void)
{
	char path[PAGE];
	snprintf(path, sizeof path, "%s/prepared", folder);
	if (!holds(open_at("named/raced"), "prepared\n"))
		wrong("before the mount");
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("none", path, "tmpfs", 0, NULL) != 0)
		wrong("mount");
	if (!holds(open_at("named/raced"), "named\n"))
		wrong("a file that is prepared outside only");
}

static long size_in_pages(void)
{
	long size = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	if (!file || fscanf(file, "%ld", &size) != 1)
		wrong("/proc/self/statm");
	fclose(file);
	return size;
}

/* A child of vfork(2) has the parent's memory: what it maps there stays. */
void case_vfork(void)
{
	expect_prepared(named, "the parent");
	long before = size_in_pages();
	for (int i = 0; i < 200; i++) {
		pid_t pid = vfork();
		if (pid == 0)
			_exit(!holds((int)syscall(SYS_open, named, O_RDONLY), "prepared\n"));
		await(pid, "vfork");
	}
	if (size_in_pages() > before + 100)
		wrong("200 calls of vfork: %ld pages, then %ld", before, size_in_pages());
}

_Noreturn void in_namespace(char **words)
{
	int status;
	if (unshare(CLONE_NEWPID) != 0)
		wrong("unshare");
	pid_t pid = fork();
	if (pid == 0) {
		execv(words[0], words);
		wrong("execv %s", words[0]);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		wrong("status %x", status);
	_exit(WEXITSTATUS(status));
}

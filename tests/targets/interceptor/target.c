/*
 * Does what the interceptor's tests watch: `target CASE FOLDER`. Rules redirect FOLDER/named/ to FOLDER/prepared/. In
 * named are no files but `raced` and `new-name`; in prepared are `file` ("prepared\n"), `link`, and `folder-link` to a
 * folder. FOLDER/root is a root folder with a FOLDER of its own. Prints "ok", or what was wrong.
 */
#include "target.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *folder, *self;
char named[PAGE];
static char plain[PAGE];
extern char **environ;

_Noreturn void wrong(const char *text, ...)
{
	va_list arguments;
	va_start(arguments, text);
	vprintf(text, arguments);
	printf(" (errno %s)\n", strerror(errno));
	fflush(stdout);
	_exit(1);
}

bool holds(int file, const char *expected)
{
	char text[64] = "";
	bool good = file >= 0 && read(file, text, sizeof text - 1) >= 0 && strcmp(text, expected) == 0;
	if (file >= 0)
		close(file);
	return good;
}

void expect_prepared(const char *path, const char *where)
{
	if (!holds((int)syscall(SYS_open, path, O_RDONLY), "prepared\n"))
		wrong("%s: open %s", where, path);
}

#define CHECK(condition)                                        \
	do {                                                    \
		errno = 0;                                      \
		if (!(condition))                               \
			wrong("form %d: %s", form, #condition); \
	} while (0)

static void case_calls(void)
{
	int form = 0; /* absolute; from the working directory; from a descriptor */
	struct stat status;
	struct statfs system;
	char link[64];
	uint64_t how[3] = {O_RDONLY, 0, 0};
	uint64_t confined[3] = {O_RDONLY, 0, 8}; /* RESOLVE_BENEATH: of the rules of last components only */
	char extended[256];
	char *relative[] = {named, "named/file"};
	char path[PAGE];
	int at[] = {AT_FDCWD, open(folder, O_RDONLY | O_DIRECTORY)};
	if (chdir(folder) != 0)
		wrong("chdir");
	for (; form < 3; form++) {
		const char *file = relative[form > 0];
		int from = at[form == 2];
		snprintf(path, sizeof path, "%.*slink", (int)(strlen(file) - 4), file);
		if (form < 2) {
			CHECK(holds((int)syscall(SYS_open, file, O_RDONLY), "prepared\n"));
			CHECK(syscall(SYS_stat, file, &status) == 0 && status.st_size == 9);
			CHECK(syscall(SYS_lstat, path, &status) == 0 && S_ISLNK(status.st_mode));
			CHECK(syscall(SYS_access, file, R_OK) == 0);
			CHECK(syscall(SYS_readlink, path, link, sizeof link) == 6 && memcmp(link, "target", 6) == 0);
			CHECK(syscall(SYS_statfs, file, &system) == 0);
			CHECK(syscall(SYS_truncate, file, 9) == 0);
		}
		CHECK(holds((int)syscall(SYS_openat, from, file, O_RDONLY), "prepared\n"));
		long opened = syscall(437, from, file, how, sizeof how);
		CHECK((opened < 0 && errno == ENOSYS) || holds((int)opened, "prepared\n"));
		if (form > 0)
			CHECK(syscall(437, from, file, confined, sizeof confined) < 0);
		CHECK(syscall(SYS_newfstatat, from, file, &status, 0) == 0 && status.st_size == 9);
		CHECK(syscall(332, from, file, 0, 0x7ff, extended) == 0 && *(uint64_t *)(extended + 40) == 9);
		CHECK(syscall(SYS_faccessat, from, file, R_OK) == 0);
		CHECK(syscall(439, from, file, R_OK, 0) == 0 || errno == ENOSYS);
		CHECK(syscall(SYS_readlinkat, from, path, link, sizeof link) == 6);
		/* What is not named: the folder itself, "..", other files, files that are not prepared. */
		CHECK(syscall(SYS_openat, from, form ? "named/../named/file" : "/nosuch", O_RDONLY) < 0 && errno == ENOENT);
		CHECK(holds((int)syscall(SYS_openat, from, form ? "./plain" : plain, O_RDONLY), "plain\n"));
		CHECK(syscall(SYS_openat, from, form ? "named/missing" : "/nosuch/x", O_RDONLY) < 0 && errno == ENOENT);
	}
	CHECK(holds((int)syscall(SYS_open, "named//.//file", O_RDONLY), "prepared\n"));
	CHECK(holds((int)syscall(SYS_open, "named/old-name", O_RDONLY), "plain\n"));
	CHECK(syscall(SYS_stat, "named", &status) == 0 && S_ISDIR(status.st_mode));
	CHECK(syscall(SYS_openat, AT_FDCWD, "", O_RDONLY) < 0 && errno == ENOENT);
	CHECK(syscall(SYS_openat, 12345, "named/file", O_RDONLY) < 0 && errno == EBADF);
}

char *pages(size_t count)
{
	char *memory = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		wrong("mmap");
	return memory;
}

static void case_memory(void)
{
	size_t length = strlen(named) + 1;
	char *read_only = pages(1);
	strcpy(read_only, named);
	mprotect(read_only, PAGE, PROT_READ);
	expect_prepared(read_only, "read-only memory");
	if (strcmp(read_only, named) != 0)
		wrong("read-only memory was changed");

	char *straddling = pages(3);
	memset(straddling, 'x', 3 * PAGE);
	for (size_t before = 1; before < length; before++) {
		char *path = straddling + PAGE - before;
		memcpy(path, named, length);
		expect_prepared(path, "straddling");
		if (memcmp(path, named, length) != 0 || path[length] != 'x' || path[-1] != 'x')
			wrong("memory around a straddling path was changed");
		memset(path, 'x', length);
	}
	munmap(straddling + PAGE, PAGE);
	memcpy(straddling + PAGE - length, named, length);
	expect_prepared(straddling + PAGE - length, "the end of mapped memory");
	straddling[PAGE - 1] = 'x'; /* no end before the hole */
	errno = 0;
	if (syscall(SYS_open, straddling + PAGE - length, O_RDONLY) >= 0 || errno != EFAULT)
		wrong("a path without an end");
	errno = 0;
	if (syscall(SYS_open, straddling + PAGE, O_RDONLY) >= 0 || errno != EFAULT)
		wrong("an unmapped path");
	errno = 0;
	if (syscall(SYS_openat, AT_FDCWD, (char *)1, O_RDONLY) >= 0 || errno != EFAULT)
		wrong("path 1");
	char *none = pages(1);
	mprotect(none, PAGE, PROT_NONE);
	errno = 0;
	if (syscall(SYS_open, none, O_RDONLY) >= 0 || errno != EFAULT)
		wrong("an unreadable path");

	char *far = pages(4);
	memset(far, '/', 3 * PAGE);
	strcpy(far + 3 * PAGE, "x");
	errno = 0;
	if (syscall(SYS_open, far, O_RDONLY) >= 0 || errno != ENAMETOOLONG)
		wrong("a path that is too long");
	size_t slashes = PAGE - length; /* with them, the longest path there may be */
	memcpy(far + slashes, named, length);
	expect_prepared(far, "4095 bytes");
}

static atomic_bool stop;
static char *raced;
static atomic_uint good;

static void *race(void *unused)
{
	(void)unused;
	while (!stop) {
		char text[64] = "";
		int file = (int)syscall(SYS_open, raced, O_RDONLY);
		if (file < 0 || read(file, text, sizeof text - 1) < 0)
			wrong("raced: no file");
		close(file);
		if (strcmp(text, "prepared\n") != 0 && strcmp(text, "plain\n") != 0 && strcmp(text, "named\n") != 0)
			wrong("raced: %s", text);
		good++;
	}
	return NULL;
}

/* One byte tells FOLDER/named/raced from FOLDER/nameX/raced; another thread changes it all the time. */
static void case_race(void)
{
	pthread_t threads[4];
	char *memory = pages(1);
	memset(memory, 'g', PAGE);
	raced = memory + 100;
	size_t length = (size_t)snprintf(raced, PAGE - 100, "%s/named/raced", folder);
	volatile char *byte = raced + strlen(folder) + 5;
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, race, NULL);
	for (unsigned i = 0; good < 20000; i++)
		*byte = i % 2 ? 'd' : 'X';
	stop = true;
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	*byte = 'd';
	if (memory[99] != 'g' || memory[100 + length + 1] != 'g' || strcmp(raced + strlen(folder), "/named/raced") != 0)
		wrong("memory was changed");
}

static void *open_once(void *path)
{
	expect_prepared(path, "a thread");
	return NULL;
}

static int child(void *path)
{
	expect_prepared(path, "a child");
	return 0;
}

void await(pid_t pid, const char *where)
{
	int status;
	if (waitpid(pid, &status, __WALL) != pid || status != 0)
		wrong("%s: status %x", where, status);
}

static void case_children(void)
{
	static char stack[64 << 10] __attribute__((aligned(16)));
	char *words[] = {(char *)self, "open", (char *)folder, NULL}, *shell[] = {"/bin/sh", "-c", "read -r x <\"$0\"; [ \"$x\" = prepared ]", named, NULL};
	pid_t pid;
	expect_prepared(named, "the program");
	for (int i = 0; i < 20; i++) {
		if ((pid = fork()) == 0) {
			expect_prepared(named, "fork");
			_exit(0);
		}
		await(pid, "fork");
		if ((pid = vfork()) == 0)
			_exit(!holds((int)syscall(SYS_open, named, O_RDONLY), "prepared\n"));
		await(pid, "vfork");
		pid = clone(child, stack + sizeof stack, CLONE_VM | SIGCHLD, named);
		await(pid, "clone with shared memory");
		uint64_t arguments[8] = {0, 0, 0, 0, SIGCHLD};
		if ((pid = (pid_t)syscall(435, arguments, sizeof arguments)) == 0) {
			expect_prepared(named, "clone3");
			_exit(0);
		}
		if (pid > 0)
			await(pid, "clone3");
		else if (errno != ENOSYS)
			wrong("clone3");
		if (posix_spawn(&pid, self, NULL, NULL, words, environ) != 0)
			wrong("posix_spawn");
		await(pid, "a static program");
		if (posix_spawn(&pid, shell[0], NULL, NULL, shell, environ) != 0)
			wrong("posix_spawn of a shell");
		await(pid, "a shell");
		expect_prepared(named, "afterwards");
	}
}

static void *execute(void *unused)
{
	char *words[] = {(char *)self, "open", (char *)folder, NULL};
	(void)unused;
	expect_prepared(named, "before exec");
	execv(self, words);
	wrong("execv");
}

/* A thread that is not the first replaces the process while others run. */
static void case_exec(void)
{
	pthread_t one, others[3];
	raced = named;
	for (int i = 0; i < 3; i++)
		pthread_create(&others[i], NULL, (void *(*)(void *))open_once, named);
	pthread_create(&one, NULL, execute, NULL);
	pause();
}

static size_t mappings(void)
{
	size_t lines = 0;
	FILE *maps = fopen("/proc/self/maps", "r");
	for (int c; maps && (c = getc(maps)) != EOF;)
		lines += c == '\n';
	if (maps)
		fclose(maps);
	return lines;
}

static void case_threads(void)
{
	size_t before = mappings();
	for (int i = 0; i < 500; i++) {
		pthread_t all[4];
		for (int j = 0; j < 4; j++)
			if (pthread_create(&all[j], NULL, open_once, named) != 0)
				wrong("pthread_create");
		for (int j = 0; j < 4; j++)
			pthread_join(all[j], NULL);
	}
	if (mappings() > before + 20)
		wrong("pages are not used again: %zu mappings, then %zu", before, mappings());
}

static atomic_uint caught;

/* The next alarm comes a while after this one was caught: on a busy machine nothing else would be done. */
static const struct itimerval soon = {.it_value = {0, 200}};

static void count(int signal)
{
	caught++;
	if (signal == SIGALRM)
		setitimer(ITIMER_REAL, &soon, NULL);
}

static void case_signals(void)
{
	struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGURG, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	for (int i = 0; i < 20000 || caught < 500; i++) {
		if (i % 16 == 0)
			kill(getpid(), SIGURG);
		expect_prepared(named, "among signals");
	}
}

/* A stop ends with the SIGCONT that comes after it; one that came before counts for nothing, so they keep coming. */
static void case_stop(void)
{
	volatile int *stopped = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 1; i <= 20; i++) {
		pid_t me = getpid(), pid = fork();
		if (pid == 0) {
			while (*stopped < i && getppid() == me) {
				kill(me, SIGCONT);
				usleep(2000);
			}
			_exit(0);
		}
		raise(i % 2 ? SIGSTOP : SIGTSTP);
		expect_prepared(named, "after a stop");
		*stopped = i;
		await(pid, "the child that lets go on");
	}
}

static void case_soak(unsigned seconds, unsigned seed)
{
	time_t end = time(NULL) + (time_t)seconds;
	void (*const parts[])(void) = {case_memory, case_threads, case_stop, case_children};
	while (time(NULL) < end) {
		pid_t pids[4];
		for (int i = 0; i < 4; i++) {
			seed = seed * 1103515245 + 12345;
			unsigned part = seed >> 16;
			if ((pids[i] = fork()) == 0) {
				parts[part % 4]();
				_exit(0);
			}
			if (part % 11 == 0)
				kill(pids[i], SIGKILL);
		}
		for (int i = 0; i < 4; i++) {
			int status;
			if (waitpid(pids[i], &status, 0) != pids[i] || (status != 0 && status != SIGKILL))
				wrong("soak: status %x", status);
		}
	}
}

static void case_bench(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		int file = open(plain, O_RDONLY);
		if (file < 0)
			wrong("open");
		close(file);
	}
}

int main(int count, char **words)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {
		{"calls", case_calls},   {"memory", case_memory},   {"race", case_race},
		{"exec", case_exec},     {"threads", case_threads}, {"children", case_children},
		{"stop", case_stop},     {"signals", case_signals}, {"slash", case_slash},
		{"turns", case_turns},   {"storm", case_storm},     {"replaced", case_replaced},
		{"unmap", case_unmap},   {"filter", case_filter},   {"upper half", case_upper_half},
		{"chroot", case_chroot}, {"mount", case_mount},     {"vfork", case_vfork},
	};
	if (count < 3)
		return 2;
	self = words[0];
	folder = words[2];
	snprintf(named, sizeof named, "%s/named/file", folder);
	snprintf(plain, sizeof plain, "%s/plain", folder);
	if (strcmp(words[1], "open") == 0)
		expect_prepared(named, "a program");
	else if (strcmp(words[1], "soak") == 0 && count == 5)
		case_soak((unsigned)atoi(words[3]), (unsigned)atoi(words[4]));
	else if (strcmp(words[1], "bench") == 0 && count == 4)
		case_bench((unsigned)atoi(words[3]));
	else if (strcmp(words[1], "namespace") == 0)
		in_namespace(words + 3);
	else if (strcmp(words[1], "wait") == 0) {
		puts("waiting");
		fflush(stdout);
		for (;;)
			pause();
	} else {
		size_t i = 0;
		while (i < sizeof cases / sizeof *cases && strcmp(words[1], cases[i].name) != 0)
			i++;
		if (i == sizeof cases / sizeof *cases)
			return 2;
		cases[i].run();
	}
	puts("ok");
	return 0;
}

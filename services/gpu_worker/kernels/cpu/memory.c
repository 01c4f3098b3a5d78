/* Memory that is quick to come back to. Linux with glibc; elsewhere these do nothing. */

#include <stddef.h>
#include <stdint.h>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { HUGE_PAGE = 2 << 20 };

/* Activations come and go with every layer: freed memory stays with the process, so that it is not
 * mapped and cleared anew each time. */
void lorikeet_keep_freed_memory(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* the most that glibc takes */
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    mallopt(M_TOP_PAD, 16 << 20);
#endif
}

/* Weights and pages in huge pages, where nothing has been written yet: far fewer misses of the
 * address cache when every step walks through all of them. */
void lorikeet_use_huge_pages(void *memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t from = ((uintptr_t)memory + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    const uintptr_t to = ((uintptr_t)memory + bytes) / HUGE_PAGE * HUGE_PAGE;
    if (from < to) madvise((void *)from, to - from, MADV_HUGEPAGE);
#endif
}

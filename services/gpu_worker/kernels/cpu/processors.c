/* Where OpenMP's threads run. Linux; elsewhere this does nothing. */

#define _GNU_SOURCE
#include <omp.h>
#include <stdint.h>

#ifdef __linux__
#include <sched.h>
#endif

/* The calling thread and each of its helpers on a processor of its own. */
void lorikeet_keep_apart(const int32_t *processors, int count) {
#ifdef __linux__
#pragma omp parallel num_threads(count)
    {
        cpu_set_t own;
        CPU_ZERO(&own);
        CPU_SET(processors[omp_get_thread_num()], &own);
        sched_setaffinity(0, sizeof own, &own);
    }
#endif
}

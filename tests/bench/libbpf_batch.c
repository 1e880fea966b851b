/* What the software NIC's tables are compared with: 100,000 flows into a hash map and out again by libbpf's batch calls.
 * Counters are kept as eBPF keeps them where packets are counted on several CPUs at once: one each, to be summed up.
 * Prints nanoseconds of CPU a flow for inserting (filling the keys included), for reading counters the first time, and
 * for the best of the following.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct key { unsigned source, target; unsigned short sport, dport; unsigned char proto, tos; unsigned short in_port;
	     unsigned char flags, ttl; unsigned short class, eth_type, tci; };
struct flow { unsigned long long rank; unsigned slot; unsigned short out, mirror; };
struct count { unsigned long long packets, bytes; };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? atoi(argv[1]) : 100000, count = n, got, i;
	int flows = bpf_map_create(BPF_MAP_TYPE_HASH, "flows", sizeof(struct key), sizeof(struct flow), n, NULL);
	int counters = bpf_map_create(BPF_MAP_TYPE_PERCPU_HASH, "counters", sizeof(struct key), sizeof(struct count), n, NULL);
	int cpus = libbpf_num_possible_cpus(), cpu;
	struct key *keys = calloc(n, sizeof(*keys)), *keys_read = NULL;
	struct flow *values = calloc(n, sizeof(*values));
	struct count *counts = cpus > 0 ? calloc((size_t)n * cpus, sizeof(*counts)) : NULL;
	struct count *sums;
	double start, insert, first = 0, best = 1e9;
	unsigned char cursor[sizeof(struct key)];

	if (flows < 0 || counters < 0 || !keys || !values || !counts)
		return 1;
	start = now();
	for (i = 0; i < n; i++) {
		keys[i] = (struct key){
			.source = __builtin_bswap32(i), .target = __builtin_bswap32(0x0a000001),
			.sport = __builtin_bswap16(1000), .dport = __builtin_bswap16(2000),
			.proto = 17, .flags = 1, .eth_type = 8,
		};
		values[i].rank = i;
		values[i].slot = i;
		values[i].out = 2;
		values[i].mirror = 0xffff;
	}
	if (bpf_map_update_batch(flows, keys, values, &count, NULL) || count != n)
		return 2;
	insert = (now() - start) / n;
	count = n;
	for (i = 0; i < n * cpus; i++)
		counts[i].packets = 7;
	if (bpf_map_update_batch(counters, keys, counts, &count, NULL) || count != n)
		return 3;
	free(counts);
	for (unsigned round = 0; round < 4; round++) {
		double once;

		if (!round) { /* the first reader has to get its memory */
			keys_read = calloc(n, sizeof(*keys));
			counts = calloc((size_t)n * cpus, sizeof(*counts));
			sums = calloc(n, sizeof(*sums));
			if (!keys_read || !counts || !sums)
				return 1;
		}
		start = now();
		got = n;
		/* ENOENT says that the map's end was reached. */
		bpf_map_lookup_batch(counters, NULL, cursor, keys_read, counts, &got, NULL);
		for (i = 0; i < got; i++) {
			sums[i] = (struct count){};
			for (cpu = 0; cpu < cpus; cpu++) {
				sums[i].packets += counts[(size_t)i * cpus + cpu].packets;
				sums[i].bytes += counts[(size_t)i * cpus + cpu].bytes;
			}
		}
		once = (now() - start) / n;
		if (got != n)
			return 4;
		if (!round)
			first = once;
		else if (once < best)
			best = once;
		for (i = 0; i < n; i++)
			if (sums[i].packets != 7ull * cpus)
				return 5;
	}
	printf("%.1f %.1f %.1f\n", insert, first, best);
	return 0;
}

/* What the software NIC's tables are compared with: 100,000 flows into a hash map and out again by libbpf's batch calls.
 * Prints nanoseconds of CPU a flow for inserting (filling the keys included) and for reading counters.
 */
#include <bpf/bpf.h>
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
	int counters = bpf_map_create(BPF_MAP_TYPE_HASH, "counters", sizeof(struct key), sizeof(struct count), n, NULL);
	struct key *keys = calloc(n, sizeof(*keys)), *keys_read = calloc(n, sizeof(*keys));
	struct flow *values = calloc(n, sizeof(*values));
	struct count *counts = calloc(n, sizeof(*counts));
	double start, insert, read;
	unsigned char cursor[sizeof(struct key)];

	if (flows < 0 || counters < 0 || !keys || !keys_read || !values || !counts)
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
	if (bpf_map_update_batch(counters, keys, counts, &count, NULL) || count != n)
		return 3;
	for (i = 0, read = 1e9; i < 3; i++) { /* the best of three, as counters are read again and again */
		double once;

		start = now();
		got = n;
		/* ENOENT says that the map's end was reached. */
		bpf_map_lookup_batch(counters, NULL, cursor, keys_read, counts, &got, NULL);
		once = (now() - start) / n;
		if (got != n)
			return 4;
		if (once < read)
			read = once;
	}
	printf("%.1f %.1f\n", insert, read);
	return 0;
}

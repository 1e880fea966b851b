/* SPDX-License-Identifier: Apache-2.0
 *
 * The data path of the software NIC: direct-action programs on the clsact ingress hook of every port.
 *
 *   nic     on the uplink, the PF and each VF: look up, count, redirect
 *   tap     on a representor: what the virtual switch sends into it reaches the VF
 *   shaped  behind the shaper (HTB), where what a VF sends comes out again at its rate
 *
 * `make bpf` builds softnic.bpf.o, which is checked in. layout.py has the same structures for Python; a test holds both
 * against each other. Only what <linux/bpf.h> defines is used: no BTF, no CO-RE, no libbpf.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define be16(x) ((__u16)__builtin_bswap16(x))

static void *(*const map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u32 (*const this_cpu)(void) = (void *)BPF_FUNC_get_smp_processor_id;
static long (*const redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*const redirect_peer)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect_peer;
static long (*const clone_redirect)(struct __sk_buff *skb, __u32 ifindex, __u64 flags) = (void *)BPF_FUNC_clone_redirect;
static long (*const load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)BPF_FUNC_skb_load_bytes;
static long (*const pull_data)(struct __sk_buff *skb, __u32 len) = (void *)BPF_FUNC_skb_pull_data;
static long (*const change_type)(struct __sk_buff *skb, __u32 type) = (void *)BPF_FUNC_skb_change_type;
static long (*const vlan_push)(struct __sk_buff *skb, __be16 proto, __u16 tci) = (void *)BPF_FUNC_skb_vlan_push;
static long (*const vlan_pop)(struct __sk_buff *skb) = (void *)BPF_FUNC_skb_vlan_pop;

#define MAX_CLASSES 32
#define MAX_PORTS 130     /* uplink, PF, 128 VFs */
#define FIRST_IFINDEX 16  /* of the uplink; port N has FIRST_IFINDEX + 2 * N, its representor the next one */
#define SHAPER_IN 4
#define SHAPER_OUT 5

#define NO_PORT 0xffff
#define UPLINK 0
#define PF 1
#define FIRST_VF 2

enum role { ROLE_NONE, ROLE_UPLINK, ROLE_PF, ROLE_VF };

enum port_flags {
	PORT_DOWN = 1,         /* the VF's link is disabled */
	PORT_SPOOF_CHECK = 2,  /* drop what has not `mac` as its source; only while PORT_MAC */
	PORT_MAC_FILTER = 4,   /* drop unicast to other addresses than `mac`; only while PORT_MAC */
	PORT_MAC = 8,          /* `mac` was administered */
	PORT_VLAN = 16,        /* `tci` is pushed on what it sends and popped from what it receives */
	PORT_SHAPED = 32,      /* what it sends goes through the shaper */
};

enum key_flags { HAS_L4 = 1, IS_TAGGED = 2, FRAGMENT_SHIFT = 2 };

/* What is compared: 8 words. A class masks them, and its number goes into the last. */
struct key {
	__u8 src[16];
	__u8 dst[16];
	__u8 eth_dst[6];
	__be16 eth_type;
	__u8 eth_src[6];
	__be16 tci;
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 tos;
	__u16 in_port;
	__u8 flags;
	__u8 ttl;
	__u16 class;        /* number of the class; bit 8: its rules name in_port */
	__u32 zero;
};

/* The same for classes that compare neither MAC nor IPv6 addresses: most rules, at a third of the memory. */
struct short_key {
	__u64 addresses;    /* IPv4: source, destination */
	__u64 transport;    /* sport, dport, proto, tos, in_port */
	__u64 rest;         /* flags, ttl, class, eth_type, tci */
};

struct flow {
	__u64 rank;   /* priority in the upper 16 bits, then the older first */
	__u32 slot;   /* of its counter and its record */
	__u16 out;    /* port, NO_PORT to drop */
	__u16 mirror; /* port, NO_PORT for none */
};

struct class {
	__u64 mask[8];      /* of struct key, or in the first three of struct short_key */
	__u64 max_rank;
	__u64 number;       /* as it goes into the key's last word */
	__u64 is_short;
};

struct classes {
	__u64 count;
	struct class item[MAX_CLASSES];
};

struct count {
	__u64 packets;
	__u64 bytes;
};

struct traffic {
	__u64 rx_packets, rx_bytes, tx_packets, tx_bytes, rx_dropped, tx_dropped, spare[2];
};

struct port {
	__u8 role;
	__u8 flags;
	__u16 number;
	__u32 miss;         /* ifindex that takes what no rule does */
	__u8 mac[6];
	__u16 tci;
	__be16 vlan_proto;
	__u8 link_state;    /* of the control plane: 0 auto, 1 enable, 2 disable */
	__u8 settings;      /* of the control plane */
	__u32 class_id;     /* of the shaper */
	__u64 min_tx_bps;   /* of the control plane */
	__u64 max_tx_bps;
	__u64 spare[3];
};

/* Of one NIC. The first line is the data path's, the rest the control plane's. */
struct config {
	__u32 bank;         /* which of the two `classes` is in force */
	__u32 rows;
	__u32 version;
	__u32 vfs;
	__u64 spare[6];
	__u64 generation;   /* changes with every change of rules */
	__u64 next_epoch;
	__u64 link_bps;
	__u8 instance[16];
	__u64 rest[3];
};

/* The control plane's record of a rule: the data path never reads it. */
struct record {
	__u8 rule_id[16];
	__u64 epoch;
	__u16 priority;
	__u8 flags;
	__u8 pad[5];
};

struct map {
	__u32 type, key_size, value_size, max_entries, map_flags;
};

/* max_entries of 0: a number that is known when the NIC is made. */
struct map SEC("maps") flows = {BPF_MAP_TYPE_HASH, sizeof(struct key), sizeof(struct flow), 0, 0};
struct map SEC("maps") short_flows = {BPF_MAP_TYPE_HASH, sizeof(struct short_key), sizeof(struct flow), 0, 0};
struct map SEC("maps") counters = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct count), 0, BPF_F_MMAPABLE};
struct map SEC("maps") records = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct record), 0, BPF_F_MMAPABLE};
struct map SEC("maps") traffic = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct traffic), 0, BPF_F_MMAPABLE};
struct map SEC("maps") ports = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct port), FIRST_IFINDEX + 2 * MAX_PORTS, BPF_F_MMAPABLE};
struct map SEC("maps") classes = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct classes), 2, BPF_F_MMAPABLE};
struct map SEC("maps") config = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct config), 1, BPF_F_MMAPABLE};

/*
 * What a packet has to compare, each field where its word of struct key has it. It stays in registers: a word that was
 * put together in memory from smaller ones could not be read back until they are all written.
 */
struct packet {
	__u64 src[2], dst[2], eth_dst, eth_src;
	__u64 ports, proto, tos, flags, ttl, eth_type, tci;
	__u32 offset; /* of the transport header; 0 where there is none */
};

#define MAC_BITS ((1ull << 48) - 1)

/* What a packet weighs on the wire. */
struct weight {
	__u32 packets;
	__u32 bytes;
};

INLINE struct port *port_of(__u32 number)
{
	__u32 at = FIRST_IFINDEX + 2 * number;

	return map_lookup(&ports, &at);
}

INLINE struct traffic *traffic_of(__u32 cpu, __u32 number)
{
	__u32 at = cpu * MAX_PORTS + number;

	return map_lookup(&traffic, &at);
}

/* IPv6 extension headers up to the transport header; returns its offset, 0 where it can't be told. */
INLINE __u32 skip_extensions(struct __sk_buff *skb, struct packet *packet, __u32 offset, __u8 next)
{
	for (int i = 0; i < 6; i++) {
		struct { __u8 next, len; __be16 fragment; } head;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_AH)
			break;
		if (load_bytes(skb, offset, &head, sizeof(head)))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			packet->flags |= (head.fragment & be16(0xfff8) ? 3 : 1) << FRAGMENT_SHIFT;
			if (head.fragment & be16(0xfff8)) { /* not the first one: what follows is payload */
				packet->proto = head.next;
				return 0;
			}
			offset += 8;
		} else {
			offset += next == IPPROTO_AH ? (head.len + 2) * 4 : (head.len + 1) * 8;
		}
		next = head.next;
	}
	packet->proto = next;
	return offset;
}

/* Network header and what is behind it; returns the offset of the transport header where there is one, else 0. */
INLINE __u32 parse_network(struct __sk_buff *skb, struct packet *packet, void *data, void *end, __u32 offset)
{
	__be16 *pair;
	__u32 head;

	if (packet->eth_type == be16(ETH_P_IP)) {
		struct iphdr *ip = data + offset;
		__u32 fragment;

		if ((void *)(ip + 1) > end || ip->ihl < 5)
			return 0;
		packet->src[0] = ip->saddr;
		packet->dst[0] = ip->daddr;
		packet->proto = ip->protocol;
		packet->tos = ip->tos;
		packet->ttl = ip->ttl;
		fragment = ip->frag_off & be16(0x3fff);
		offset += ip->ihl * 4;
		if (fragment) {
			packet->flags |= (fragment & be16(0x1fff) ? 3 : 1) << FRAGMENT_SHIFT;
			if (fragment & be16(0x1fff)) /* not the first one: no transport header */
				return 0;
		}
	} else if (packet->eth_type == be16(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + offset;

		if ((void *)(ip + 1) > end)
			return 0;
		packet->src[0] = *(__u64 *)&ip->saddr;
		packet->src[1] = *((__u64 *)&ip->saddr + 1);
		packet->dst[0] = *(__u64 *)&ip->daddr;
		packet->dst[1] = *((__u64 *)&ip->daddr + 1);
		packet->proto = ip->nexthdr;
		packet->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
		packet->ttl = ip->hop_limit;
		offset = skip_extensions(skb, packet, offset + sizeof(*ip), ip->nexthdr);
		if (!offset)
			return 0;
	} else {
		return 0;
	}
	pair = data + (offset & 511); /* bounded for the verifier */
	if (offset < 512 && (void *)(pair + 2) <= end)
		head = *(__u32 *)pair;
	else if (load_bytes(skb, offset, &head, sizeof(head))) /* beyond what is linear: behind many extension headers */
		return 0;
	if (packet->proto == IPPROTO_TCP || packet->proto == IPPROTO_UDP || packet->proto == IPPROTO_SCTP) {
		packet->ports = head;
		packet->flags |= HAS_L4;
	} else if (packet->proto == IPPROTO_ICMP || packet->proto == IPPROTO_ICMPV6) {
		packet->ports = be16(head & 0xff) | (__u32)be16(head >> 8 & 0xff) << 16;
		packet->flags |= HAS_L4;
	}
	return offset;
}

INLINE struct packet parse(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct packet packet = {};
	__u32 offset = sizeof(struct ethhdr);

	if (data + sizeof(struct ethhdr) > end)
		return packet;
	packet.eth_dst = *(__u64 *)data & MAC_BITS;
	packet.eth_src = *(__u64 *)(data + 6) & MAC_BITS;
	packet.eth_type = *(__u16 *)(data + 12);
	if (skb->vlan_present) { /* the kernel keeps the outer tag beside the frame */
		packet.tci = be16(skb->vlan_tci);
		packet.flags = IS_TAGGED;
	}
	if (packet.eth_type == be16(ETH_P_8021Q) || packet.eth_type == be16(ETH_P_8021AD)) { /* a second tag */
		if (data + sizeof(struct ethhdr) + 4 > end) {
			packet.eth_type = 0;
			return packet;
		}
		packet.eth_type = *(__u16 *)(data + 16);
		offset += 4;
	}
	packet.offset = parse_network(skb, &packet, data, end, offset);
	return packet;
}

/* A segmentation-offload packet weighs what its segments would, each with its own headers. */
INLINE struct weight weigh(struct __sk_buff *skb, const struct packet *packet)
{
	struct weight weight = {1, skb->len};
	__u32 size = skb->gso_size, header = packet->offset ? packet->offset + 8 : sizeof(struct ethhdr);
	__u8 length;

	if (size) {
		if (packet->offset && packet->proto == IPPROTO_SCTP)
			header = packet->offset + 12;
		if (packet->offset && packet->proto == IPPROTO_TCP && !load_bytes(skb, packet->offset + 12, &length, 1))
			header = packet->offset + (length >> 4) * 4;
		weight.packets = skb->gso_segs;
		if (!weight.packets && weight.bytes > header)
			weight.packets = (weight.bytes - header + size - 1) / size;
		if (!weight.packets)
			weight.packets = 1;
		weight.bytes += (weight.packets - 1) * header;
	}
	if (skb->vlan_present)
		weight.bytes += 4 * weight.packets;
	return weight;
}

INLINE struct flow *look_up(const struct packet *packet, __u64 in_port, const struct classes *all)
{
	__u64 transport = packet->ports | packet->proto << 32 | packet->tos << 40 | in_port << 48;
	__u64 rest = packet->flags | packet->ttl << 8;
	struct short_key whole = {
		.addresses = (__u32)packet->src[0] | packet->dst[0] << 32,
		.transport = transport,
		.rest = rest | packet->eth_type << 32 | packet->tci << 48,
	};
	struct flow *best = 0;

	for (__u32 i = 0; i < MAX_CLASSES; i++) {
		const struct class *class = &all->item[i];
		struct flow *found;

		if (i >= all->count || (best && best->rank >= class->max_rank))
			break;
		if (class->is_short) {
			struct short_key masked = {
				.addresses = whole.addresses & class->mask[0],
				.transport = whole.transport & class->mask[1],
				.rest = (whole.rest & class->mask[2]) | class->number,
			};

			found = map_lookup(&short_flows, &masked);
		} else {
			__u64 masked[8] = {
				packet->src[0] & class->mask[0],
				packet->src[1] & class->mask[1],
				packet->dst[0] & class->mask[2],
				packet->dst[1] & class->mask[3],
				(packet->eth_dst | packet->eth_type << 48) & class->mask[4],
				(packet->eth_src | packet->tci << 48) & class->mask[5],
				transport & class->mask[6],
				(rest & class->mask[7]) | class->number,
			};

			found = map_lookup(&flows, masked);
		}
		if (found && (!best || found->rank > best->rank))
			best = found;
	}
	return best;
}

INLINE int lost(__u32 number, __u32 packets, int at_source)
{
	struct traffic *sum = traffic_of(this_cpu(), number);

	if (sum) {
		if (at_source)
			sum->tx_dropped += packets;
		else
			sum->rx_dropped += packets;
	}
	return TC_ACT_SHOT;
}

/* Into the other end of a port's pair, without a queue. */
INLINE int hand_over(struct __sk_buff *skb, __u32 ifindex)
{
	if (skb->pkt_type == PACKET_OTHERHOST) /* by the address of our end; the other end has its own */
		change_type(skb, PACKET_HOST);
	return redirect_peer(ifindex, 0);
}

INLINE int is_other(__u64 mac, const struct port *port)
{
	return (mac ^ *(__u64 *)port->mac) & MAC_BITS ? 1 : 0;
}

/* The guards of a VF: its link, its address filter, its port VLAN. */
INLINE int lets_in(struct __sk_buff *skb, const struct port *to, __u64 eth_dst)
{
	if (to->role != ROLE_VF || to->flags & PORT_DOWN)
		return 0;
	if ((to->flags & (PORT_MAC | PORT_MAC_FILTER)) == (PORT_MAC | PORT_MAC_FILTER) && !(eth_dst & 1) &&
	    is_other(eth_dst, to))
		return 0;
	/* A C-VLAN and an S-VLAN of one number are two. */
	return !(to->flags & PORT_VLAN) || (skb->vlan_present && skb->vlan_proto == to->vlan_proto &&
					    (skb->vlan_tci & 0xfff) == (to->tci & 0xfff));
}

INLINE int deliver_vf(struct __sk_buff *skb, const struct port *to, __u32 cpu, __u64 eth_dst, __u32 packets,
		      __u32 bytes)
{
	struct traffic *sum;

	if (!lets_in(skb, to, eth_dst))
		return lost(to->number, packets, 0);
	if (to->flags & PORT_VLAN) {
		if (vlan_pop(skb))
			return lost(to->number, packets, 0);
		bytes -= 4 * packets;
	}
	sum = traffic_of(cpu, to->number);
	if (sum) {
		sum->rx_packets += packets;
		sum->rx_bytes += bytes;
	}
	return hand_over(skb, FIRST_IFINDEX + 2 * to->number);
}

/* Send a copy into a port, by the guards that hold for what is delivered; returns 0 if the packet itself is as it was. */
INLINE int copy_to(struct __sk_buff *skb, __u32 mirror, __u32 cpu, __u64 eth_dst, struct weight weight)
{
	struct traffic *sum = traffic_of(cpu, mirror);
	struct port *to = port_of(mirror);
	__u32 tci = skb->vlan_tci, proto = skb->vlan_proto, tagged = 0, failed;

	if (!sum || !to)
		return 0;
	if (mirror >= FIRST_VF) {
		if (!lets_in(skb, to, eth_dst)) {
			sum->rx_dropped += weight.packets;
			return 0;
		}
		tagged = to->flags & PORT_VLAN;
	}
	if (tagged) {
		if (vlan_pop(skb))
			return -1;
		weight.bytes -= 4 * weight.packets;
	}
	failed = clone_redirect(skb, FIRST_IFINDEX + 2 * mirror, 0) != 0;
	if (mirror == UPLINK) {
		if (failed) {
			sum->tx_dropped += weight.packets;
		} else {
			sum->tx_packets += weight.packets;
			sum->tx_bytes += weight.bytes;
		}
	} else if (failed) {
		sum->rx_dropped += weight.packets;
	} else {
		sum->rx_packets += weight.packets;
		sum->rx_bytes += weight.bytes;
	}
	return tagged ? vlan_push(skb, proto, tci) : 0;
}

/* Forward what entered at `from`. */
INLINE int forward(struct __sk_buff *skb, const struct port *from, const struct packet *packet,
		   struct weight weight)
{
	__u32 zero = 0, number = from->number, cpu = this_cpu(), out = NO_PORT, bank;
	struct config *conf = map_lookup(&config, &zero);
	struct traffic *sum = traffic_of(cpu, number);
	struct classes *all;
	struct flow *flow;

	if (!conf || !sum)
		return TC_ACT_SHOT;
	if (number == UPLINK) {
		sum->rx_packets += weight.packets;
		sum->rx_bytes += weight.bytes;
	} else {
		sum->tx_packets += weight.packets;
		sum->tx_bytes += weight.bytes;
	}
	bank = conf->bank;
	all = map_lookup(&classes, &bank);
	if (!all)
		return TC_ACT_SHOT;
	flow = look_up(packet, number, all);
	if (flow) {
		__u32 at = cpu * conf->rows + flow->slot, mirror = flow->mirror;
		struct count *count = map_lookup(&counters, &at);

		out = flow->out;
		if (count) {
			count->packets += weight.packets;
			count->bytes += weight.bytes;
		}
		if (out == NO_PORT && mirror == NO_PORT)
			return TC_ACT_SHOT;
		if (from->flags & PORT_VLAN) {
			if (vlan_push(skb, from->vlan_proto, from->tci))
				return lost(number, weight.packets, 1);
			weight.bytes += 4 * weight.packets;
		}
		if (mirror != NO_PORT && copy_to(skb, mirror, cpu, packet->eth_dst, weight))
			return lost(number, weight.packets, number != UPLINK);
		if (out == NO_PORT)
			return TC_ACT_SHOT;
		if (out >= FIRST_VF) {
			struct port *to = port_of(out);

			if (!to)
				return TC_ACT_SHOT;
			return deliver_vf(skb, to, cpu, packet->eth_dst, weight.packets, weight.bytes);
		}
	} else {
		if (from->flags & PORT_VLAN && vlan_push(skb, from->vlan_proto, from->tci))
			return lost(number, weight.packets, 1);
		if (number >= FIRST_VF) /* its representor */
			return redirect(from->miss, 0);
		out = number == UPLINK ? PF : UPLINK;
	}
	sum = traffic_of(cpu, out);
	if (!sum)
		return TC_ACT_SHOT;
	if (out == UPLINK) {
		sum->tx_packets += weight.packets;
		sum->tx_bytes += weight.bytes;
		return hand_over(skb, FIRST_IFINDEX);
	}
	/* The host's stack takes whole packets with a checksum: by the device's features its egress makes them so. */
	sum->rx_packets += weight.packets;
	sum->rx_bytes += weight.bytes;
	return redirect(FIRST_IFINDEX + 2 * PF, 0);
}

INLINE struct packet open_packet(struct __sk_buff *skb)
{
	__u32 linear = (long)skb->data_end - (long)skb->data;

	if (linear < 128 && linear < skb->len)
		pull_data(skb, skb->len < 128 ? skb->len : 128);
	return parse(skb);
}

SEC("tc/nic") int nic(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct port *from = map_lookup(&ports, &ifindex);
	struct packet packet;
	struct weight weight;

	if (!from)
		return TC_ACT_SHOT;
	packet = open_packet(skb);
	weight = weigh(skb, &packet);
	if (from->role == ROLE_VF) {
		if (from->flags & PORT_DOWN)
			return lost(from->number, weight.packets, 1);
		if ((from->flags & (PORT_MAC | PORT_SPOOF_CHECK)) == (PORT_MAC | PORT_SPOOF_CHECK) &&
		    is_other(packet.eth_src, from))
			return lost(from->number, weight.packets, 1);
		if (from->flags & PORT_SHAPED) {
			skb->mark = from->number;
			skb->priority = from->class_id;
			return redirect(SHAPER_IN, 0);
		}
	}
	return forward(skb, from, &packet, weight);
}

SEC("tc/shaped") int shaped(struct __sk_buff *skb)
{
	__u32 number = skb->mark;
	struct port *from = port_of(number);
	struct packet packet;

	if (number < FIRST_VF || !from)
		return TC_ACT_SHOT;
	skb->mark = 0;
	packet = open_packet(skb);
	return forward(skb, from, &packet, weigh(skb, &packet));
}

SEC("tc/tap") int tap(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex - 1;
	struct port *to = map_lookup(&ports, &ifindex);
	struct packet packet;
	struct weight weight;

	if (!to)
		return TC_ACT_SHOT;
	packet = open_packet(skb);
	weight = weigh(skb, &packet);
	return deliver_vf(skb, to, this_cpu(), packet.eth_dst, weight.packets, weight.bytes);
}

char SEC("license") licence[] = "Dual BSD/GPL";

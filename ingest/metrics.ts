/** Metrics of the door. Invariant: accepted + rejected of a dataset = events of all answered requests. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Door } from './door.ts'

export const observeDoor = (registry: Registry, door: Door): void => {
  const registers = [registry]
  const labelNames = ['dataset'] as const
  const accepted = new Counter({
    name: 'weir_ingest_accepted_events_total',
    help: 'Events accepted, durable in the log',
    labelNames,
    registers,
  })
  const rejected = new Counter({
    name: 'weir_ingest_rejected_events_total',
    help: 'Events rejected at the door',
    labelNames,
    registers,
  })
  const bytes = new Counter({
    name: 'weir_ingest_bytes_total',
    help: 'Bytes of answered requests, after decompression',
    labelNames,
    registers,
  })
  const lost = new Counter({
    name: 'weir_ingest_rejects_lost_total',
    help: 'Rejected events that the reject store could not keep because it failed',
    labelNames,
    registers,
  })
  const groupEvents = new Histogram({
    name: 'weir_ingest_group_events',
    help: 'Events decoded together',
    labelNames,
    buckets: [1, 10, 100, 1_000, 10_000, 100_000],
    registers,
  })
  const groupRequests = new Histogram({
    name: 'weir_ingest_group_requests',
    help: 'Requests decoded together',
    labelNames,
    buckets: [1, 2, 5, 10, 50, 200, 1_000],
    registers,
  })
  const durable = new Histogram({
    name: 'weir_ingest_durable_seconds',
    help: 'Seconds from the last byte of a request to its durability',
    labelNames,
    buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10],
    registers,
  })
  const inFlight: Gauge = new Gauge({
    name: 'weir_ingest_in_flight_bytes',
    help: 'Bytes of requests being taken in',
    registers,
    collect: () => inFlight.set(door.inFlightBytes()),
  })
  for (const dataset of door.datasets()) {
    accepted.inc({ dataset }, 0)
    rejected.inc({ dataset }, 0)
  }
  door.observe({
    answered: (dataset, good, bad, size, seconds) => {
      accepted.inc({ dataset }, good)
      rejected.inc({ dataset }, bad)
      bytes.inc({ dataset }, size)
      durable.observe({ dataset }, seconds)
    },
    grouped: (dataset, requests, events) => {
      groupRequests.observe({ dataset }, requests)
      groupEvents.observe({ dataset }, events)
    },
    rejectsLost: (dataset, events) => lost.inc({ dataset }, events),
  })
}

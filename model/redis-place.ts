/** Where Redis is, for whatever stands on it: one block of settings serves the speed state and the job queues alike. */

/** `ca`: who vouches for the servers, PEM; left out: whom the system trusts. */
export type RedisTls = { ca?: string }

/** Exactly one of url, cluster, sentinel. */
export type RedisPlace = {
  /** One server: `redis://[user:password@]host:port[/db]`, `rediss://` with TLS. */
  url?: string
  /** Some nodes of a Cluster, as `host:port`; it tells the others. */
  cluster?: string[]
  /** Sentinels as `host:port`, and the name of the master that they watch. Without a `tls` of their own they have the servers'. */
  sentinel?: { nodes: string[]; name: string; username?: string; password?: string; tls?: RedisTls }
  username?: string
  password?: string
  db?: number
  tls?: RedisTls
}

/** Servers that tests use, from the environment. A missing one skips its tests with a reason; where services are required, it fails them. */

export type Service = 'KAFKA_BROKERS' | 'REDIS_URL' | 'REDIS_CLUSTER' | 'S3_ENDPOINT'

/** The variable's value, or null after the reason was printed. Throws in CI with WEIR_SERVICES=required. */
export const service = (name: Service): string | null => {
  const { [name]: value, CI, WEIR_SERVICES } = process.env
  if (value) return value
  const reason = `${name} is not set: tests of that server`
  if (CI && WEIR_SERVICES === 'required') throw new Error(`${reason} must run here`)
  console.info(`${reason} are skipped`)
  return null
}

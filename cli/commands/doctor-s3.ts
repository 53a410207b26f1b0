/** S3, as `weir doctor` sees it: the bucket, the rights, and whether conditional writes are kept. Removes what it writes to try. */
import { connectS3 } from '../../lake/s3-client.ts'
import { listObjects } from '../../lake/s3-read.ts'
import { probeStore } from '../../lake/s3-start.ts'
import type { Settings } from '../../model/settings.ts'
import { s3Client } from '../servers.ts'
import { ANSWER_MS, type Finding, lookAt, ok } from './doctor-finding.ts'

export const s3Findings = async (settings: Settings): Promise<Finding[]> =>
  lookAt('s3', async () => {
    const s3 = await connectS3({ ...s3Client(settings.s3), attemptMs: ANSWER_MS, deadlineMs: ANSWER_MS })
    try {
      await probeStore(s3)
      await listObjects(s3, 'datasets/')
      return [ok(`s3 ${s3.where}`, 'read, write, list and delete are allowed; conditional writes are kept')]
    } finally {
      s3.close()
    }
  })

/** The S3 store keeps the object store's contract. */
import { describe } from 'vitest'
import { testBucket } from '../lake/s3-support.ts'
import { service } from '../support/services.ts'
import { objectStoreContract } from './object-store.ts'

const endpoint = service('S3_ENDPOINT')
describe.skipIf(endpoint === null)('on S3', () => objectStoreContract('S3', () => testBucket(endpoint!)))

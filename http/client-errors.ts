/** What Node's parser refuses before there is a request. Invariant: the answer is a problem document and the socket closes. */
import type { Socket } from 'node:net'
import { WeirError } from '../model/errors.ts'
import { problemDocument } from './problems.ts'

const of = (code: string | undefined): { status: number; error: WeirError } => {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return {
      status: 408,
      error: new WeirError({
        code: 'WEIR_HTTP_TOO_SLOW',
        message: 'The request did not arrive in time.',
        next: 'send smaller bodies, or over a faster line',
        retryable: true,
      }),
    }
  if (code === 'HPE_HEADER_OVERFLOW')
    return {
      status: 431,
      error: new WeirError({ code: 'WEIR_HTTP_HEADERS', message: 'The headers are too large.', next: 'send fewer' }),
    }
  return {
    status: 400,
    error: new WeirError({ code: 'WEIR_HTTP_NOT_HTTP', message: 'This is not an HTTP/1.1 request.' }),
  }
}

/** Fastify's `clientErrorHandler`. */
export const clientErrorHandler = (error: NodeJS.ErrnoException, socket: Socket): void => {
  if (error.code === 'ECONNRESET' || socket.destroyed || !socket.writable) {
    socket.destroy()
    return
  }
  const { status, error: told } = of(error.code)
  const document = problemDocument(status, told)
  const body = JSON.stringify(document)
  socket.write(
    `HTTP/1.1 ${status} ${document.title}\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
  socket.destroySoon()
}

// Who may import whom (docs/rooms.md). Think before changing this file: the direction is what keeps the layers honest.
const rooms = ['model', 'engine', 'log', 'http', 'ingest', 'speed-layer', 'lake', 'batch-layer', 'serving-layer', 'cli']
const may = {
  model: [],
  engine: ['model'],
  log: ['model'],
  http: ['model'],
  ingest: ['model', 'engine', 'http'],
  'speed-layer': ['model', 'engine'],
  lake: ['model', 'engine'],
  'batch-layer': ['model', 'engine', 'lake'],
  'serving-layer': ['model', 'engine', 'lake', 'http'],
  cli: rooms,
}
const vendors = {
  '@duckdb/node-api': ['engine'],
  lmdb: ['log', 'speed-layer'],
  fastify: ['http'],
  croner: ['batch-layer'],
  commander: ['cli'],
  'cli-progress': ['cli'],
  pino: ['cli', 'http'],
  kafkajs: ['log'],
  ioredis: ['speed-layer', 'batch-layer'],
  bullmq: ['batch-layer'],
  '@aws-sdk/client-s3': ['lake'],
}
module.exports = {
  forbidden: [
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    ...rooms.map((room) => ({
      name: `${room}-imports`,
      comment: `${room}/ may import only: ${['itself', ...may[room]].join(', ')}`,
      severity: 'error',
      from: { path: `^${room}/` },
      to: { path: `^(${rooms.filter((r) => r !== room && !may[room].includes(r)).join('|') || 'none'})/` },
    })),
    ...Object.entries(vendors).map(([vendor, allowed]) => ({
      name: `vendor-${vendor.replace(/\W/g, '-')}`,
      comment: `${vendor} is touched only by: ${allowed.join(', ')}`,
      severity: 'error',
      from: { pathNot: `^(${allowed.join('|')})/` },
      to: { path: `^node_modules/${vendor}/` },
    })),
    {
      name: 'model-is-pure',
      severity: 'error',
      from: { path: '^model/' },
      to: { dependencyTypes: ['core'], pathNot: '^(crypto|node:crypto)$' },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { extensions: ['.ts', '.js'] },
  },
}

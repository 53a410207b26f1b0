/** `weir check`: compiles all definitions and prints what each view becomes, or every error at once. */
import type { Command } from 'commander'
import { mergeCellsSql, partialSql } from '../../model/cells.ts'
import { referenceSql } from '../../model/compile/reference.ts'
import { ident } from '../../model/ident.ts'
import type { Project } from '../../model/project.ts'
import { resolveQuery } from '../../model/query/resolve.ts'
import type { View } from '../../model/view.ts'
import { type CommonOptions, jsonOption, projectFolder, show } from '../context.ts'
import { loadProject } from '../project-files.ts'

const presentText = (view: View): string => view.measures.map((m) => `  ${ident(m.name)} := ${m.present}`).join('\n')

const referenceOf = (project: Project, view: View): string => {
  const dataset = project.datasets.find((d) => d.name === view.dataset)!
  const { defaultLimit, maxLimit } = project.settings.query
  const resolved = resolveQuery({ view: view.name }, view, dataset, {
    nowMs: Date.now(),
    limits: { defaultLimit, maxLimit },
    forced: undefined,
  })
  return referenceSql(view, resolved, 'events')
}

const viewText = (view: View, reference: string | null): string =>
  [
    `view ${view.name}  (dataset ${view.dataset}, version ${view.version}${view.file ? `, ${view.file}` : ''})`,
    ...(view.bucket ? [`  bucket      ${view.bucket.name}, every ${view.bucket.grain.interval}`] : []),
    ...(view.dimensions.length
      ? [`  dimensions  ${view.dimensions.map((d) => `${d.name} ${d.type}`).join(', ')}`]
      : []),
    `  measures    ${view.measures.map((m) => `${m.name} ${m.type}${m.approximate ? ' (approximate)' : ''}`).join(', ')}`,
    '',
    '-- partial: of decoded events, in both layers',
    partialSql(view, 'events'),
    '',
    '-- merge: of cells, however they were split',
    mergeCellsSql(view, 'cells'),
    '',
    '-- present: of merged cells',
    presentText(view),
    ...(reference === null
      ? []
      : ['', '-- reference: what every answer must equal, over all counted events', reference]),
    '',
  ].join('\n')

export const checkCommand = (program: Command): void => {
  const command = program
    .command('check')
    .argument('[dir]', 'project folder')
    .option('--reference', "also print each view's plain one-pass SQL")
    .option('--project <dir>', 'the same as [dir]')
    .option('--config <file>', 'a settings file in place of <dir>/weir.yaml')
    .addHelpText(
      'after',
      `
Nothing is started and nothing is written. Exits 1 if anything is wrong; every error has its file and line.

Examples:
  weir check
  weir check shop --reference
  weir check --json | jq '.views[].version'`,
    )
  jsonOption(command).action(async (dir: string | undefined, options: CommonOptions & { reference?: boolean }) => {
    const folder = dir ?? projectFolder(options)
    const project = await loadProject(folder, options.config)
    const views = project.views.map((view) => ({
      view,
      reference: options.reference ? referenceOf(project, view) : null,
    }))
    const json = {
      name: project.settings.name,
      datasets: project.datasets.map((d) => ({ name: d.name, columns: d.columns, file: d.file })),
      views: views.map(({ view, reference }) => ({
        name: view.name,
        dataset: view.dataset,
        version: view.version,
        sql: view.sql,
        partial: partialSql(view, 'events'),
        merge: mergeCellsSql(view, 'cells'),
        present: Object.fromEntries(view.measures.map((m) => [m.name, m.present])),
        ...(reference === null ? {} : { reference }),
      })),
    }
    show(options, json, () =>
      [
        ...views.map(({ view, reference }) => viewText(view, reference)),
        `${project.settings.name}: ${project.datasets.length} dataset(s), ${project.views.length} view(s), all sound.`,
      ].join('\n'),
    )
  })
}

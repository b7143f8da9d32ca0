import { useState } from 'react'
import { refusal, type Identities, type Identity } from './identities'
import { Photos } from './Photos'
import { Samples } from './Samples'
import { statusOf } from './statusOf'

type Props = { row: Identity; identities: Identities }

/** One identity: what its status is, and what can be done about it. */
export function IdentityCard({ row, identities }: Props) {
  const [busy, setBusy] = useState(false)
  const [refused, setRefused] = useState('')
  const fault = row.error_image
  const published = row.status === 'published' || row.status === 'ready'

  const run = async (act: () => Promise<void>) => {
    setBusy(true)
    setRefused('')
    try {
      await act()
    } catch (error) {
      setRefused(refusal(error).message)
    }
    setBusy(false)
  }
  const remove = () => {
    const cancels = row.status === 'training' ? ' Its training is cancelled.' : ''
    if (confirm(`Delete “${row.identity_name}” with its photos and all that was made of them?${cancels}`)) void run(() => identities.remove(row))
  }
  const train = () => {
    if (row.status === 'ready' && !confirm('Train again? The new model and its pictures take the place of these.')) return
    void run(() => identities.train(row))
  }
  const replace = (number: number, file: File | undefined) => {
    if (file) void run(async () => {
      await identities.replace(row, number, file)
      await identities.retry(row)
    })
  }

  return (
    <li className="card" aria-label={row.identity_name} data-status={row.status}>
      <h3>{row.identity_name} <small><time dateTime={row.created_at}>{new Date(row.created_at).toLocaleString()}</time></small></h3>
      <p role="status">{statusOf(row)}</p>
      {row.status === 'publishing' && (
        <progress aria-label="Photos published" max={row.image_paths.length} value={row.images_published} />
      )}
      {row.huggingface_repo_url && (
        <p><a href={row.huggingface_repo_url} target="_blank" rel="noreferrer">Open the repo</a> <small>(private: only its owner can)</small></p>
      )}
      {row.sample_paths && <Samples row={row} identities={identities} />}
      <Photos row={row} identities={identities} fault={fault} />
      <p role="alert" className="problems">{refused}</p>
      <p className="actions">
        {fault && (
          <label className={busy ? 'file busy' : 'file'}>
            Replace photo {fault} and try again
            <input type="file" accept="image/jpeg,image/png" disabled={busy} onChange={(event) => { replace(fault, event.target.files?.[0]) }} />
          </label>
        )}
        {row.status === 'failed' && <button disabled={busy} className={fault ? 'plain' : ''} onClick={() => void run(() => identities.retry(row))}>Try again</button>}
        {published && !row.train && (
          <button disabled={busy} className={row.training_error_code ? '' : 'plain'} onClick={train}>
            {row.training_error_code || row.status === 'ready' ? 'Train again' : 'Train a model'}
          </button>
        )}
        {published && row.train && (
          <button disabled={busy} className="plain" onClick={() => void run(() => identities.train(row, false))}>Withdraw the training</button>
        )}
        <button disabled={busy} className="plain" onClick={remove}>Delete</button>
      </p>
    </li>
  )
}

import { useEffect, useRef, useState, type FormEvent } from 'react'
import { check, LEAST, MOST, refusal, type Identities, type Problem } from './identities'
import { Preview } from './Preview'

type Props = { identities: Identities; onSessionEnd: () => Promise<void> }

/** A name and photos, what is wrong with which of them, and a bar for each while they are uploaded. */
export function NewIdentity({ identities, onSessionEnd }: Props) {
  const [name, setName] = useState('')
  const [files, setFiles] = useState<File[]>([])
  const [train, setTrain] = useState(false)
  const [triggerWord, setTriggerWord] = useState('')
  const [problems, setProblems] = useState<Problem[]>([])
  const [sent, setSent] = useState<Record<number, number>>({}) // bytes, by the photo's number
  const [sending, setSending] = useState<AbortController | null>(null)
  const [refused, setRefused] = useState('')
  const [told, setTold] = useState('')
  const newest = useRef<File[]>([])

  useEffect(() => {
    identities.unfinished().then(([draft]) => {
      if (!draft) return
      setName(draft)
      setTold(`The upload of “${draft}” was not finished. Choose its photos again: only what is missing is uploaded.`)
    }, () => undefined)
  }, [identities])

  const choose = async (chosen: File[]) => {
    newest.current = chosen
    setFiles(chosen)
    setSent({})
    setRefused('')
    setTold('')
    const found = chosen.length ? await check(chosen) : []
    if (newest.current !== chosen) return // chosen differently meanwhile
    setProblems(found)
    if (chosen.length && !found.length) setTold(`${chosen.length} photos are chosen and fit.`)
  }

  const submit = async (event: FormEvent) => {
    event.preventDefault()
    const controller = new AbortController()
    setSending(controller)
    setRefused('')
    setTold(`Uploading ${files.length} photos. You can reload this page; what is uploaded is kept.`)
    try {
      const onProgress = (number: number, bytes: number) => { setSent((known) => ({ ...known, [number]: bytes })) }
      const training = train ? { train, triggerWord } : {}
      await identities.create(name.trim(), files, { onProgress, signal: controller.signal, ...training })
      await choose([])
      setName('')
      setTrain(false)
      setTriggerWord('')
      setTold(`The photos are uploaded. You can close this page: publishing${train ? ' and training go' : ' goes'} on.`)
    } catch (error) {
      setTold('')
      if (controller.signal.aborted) return
      const { message, reason } = refusal(error)
      setRefused(message)
      if (reason === 'session') await onSessionEnd()
    } finally {
      setSending(null)
    }
  }

  const fits = files.length > 0 && !problems.length && name.trim()
  return (
    <form className="card" onSubmit={(event) => void submit(event)} aria-labelledby="new">
      <h2 id="new">New identity</h2>
      <label>Name <input value={name} maxLength={100} required disabled={!!sending} onChange={(event) => { setName(event.target.value) }} /></label>
      <label className="file">
        {files.length ? 'Add photos' : 'Choose photos'}
        <input
          type="file" multiple accept="image/jpeg,image/png,.heic,.heif" disabled={!!sending} aria-describedby="rules"
          onChange={(event) => {
            void choose([...files, ...(event.target.files ?? [])])
            event.target.value = ''
          }}
        />
      </label>
      <p id="rules" className="hint">
        {LEAST} to {MOST} photos of one person, JPG or PNG, at most 20 MiB each.
      </p>
      <div role="alert">
        {problems.length > 0 && <ul className="problems">{problems.map(({ message }) => <li key={message}>{message}</li>)}</ul>}
      </div>
      <ul className="photos">
        {files.map((file, index) => (
          <li key={`${file.name} ${file.size} ${index}`} className={problems.some(({ number }) => number === index + 1) ? 'wrong' : ''}>
            <Preview file={file} />
            <span className="number">{index + 1}</span>
            {sending
              ? <progress aria-label={`Photo ${index + 1}`} max={file.size} value={sent[index + 1] ?? 0} />
              : <button type="button" className="remove" aria-label={`Remove photo ${index + 1} (${file.name})`}
                  onClick={() => void choose(files.filter((other) => other !== file))}>×</button>}
          </li>
        ))}
      </ul>
      <label className="check">
        <input type="checkbox" checked={train} disabled={!!sending} aria-describedby="training" onChange={(event) => { setTrain(event.target.checked) }} />
        Have a model trained that makes pictures of this person
      </label>
      <p id="training" className="hint">It may take an hour, or have to wait for another day. You can also ask for it later.</p>
      {train && (
        <>
          <label>
            Trigger word (optional)
            <input
              value={triggerWord} maxLength={40} pattern="[A-Za-z0-9]+([ _\-][A-Za-z0-9]+){0,3}" disabled={!!sending}
              title="One to four words of A-Z, a-z and 0-9" aria-describedby="trigger"
              onChange={(event) => { setTriggerWord(event.target.value) }}
            />
          </label>
          <p id="trigger" className="hint">
            What prompts call this person, in one to four words of A-Z, a-z and 0-9. It cannot be changed later; without one, it is “ohwx person”.
          </p>
        </>
      )}
      <p role="status">{told}</p>
      <p role="alert" className="problems">{refused}</p>
      <p className="actions">
        <button disabled={!fits || !!sending}>{sending ? 'Uploading …' : 'Create'}</button>
        {sending && <button type="button" className="plain" onClick={() => { sending.abort() }}>Stop</button>}
      </p>
    </form>
  )
}
